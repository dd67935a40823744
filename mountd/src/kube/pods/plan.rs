//! A pod as it is run: its containers in order, its policies, its grace.

use std::time::Duration;

use serde_json::Value;

use crate::kube::meta::text;

/// The grace of a pod that names none, in seconds.
const GRACE: u64 = 30;

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Whatever its exit code was.
    Always,
    /// If it failed.
    OnFailure,
    /// It is not.
    Never,
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It ends before the next one begins.
    Init,
    /// It begins before the next one, and runs as long as the pod.
    Sidecar,
    /// One of those that the pod is for.
    Main,
}

/// A container.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The name of its image.
    pub image: String,
    /// What it is to the pod.
    pub role: Role,
    /// The path of its specification in the pod, as events name it.
    pub field: String,
    /// Its specification.
    pub spec: Value,
}

impl Container {
    /// The items of a list of its specification.
    pub fn items(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.spec.get(name).and_then(Value::as_array).into_iter().flatten()
    }
}

/// A pod.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub uid: String,
    /// The containers, in the order in which they begin.
    pub containers: Vec<Container>,
    /// When those that are no init containers are started again.
    pub policy: Restart,
    /// The object.
    pub object: Value,
}

/// A number in an object.
pub fn number(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

impl Plan {
    /// Reads a pod.
    #[must_use]
    pub fn of(object: Value) -> Self {
        let mut containers = Vec::new();
        for list in ["initContainers", "containers"] {
            let of = object.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
            for spec in of.into_iter().flatten() {
                let name = text(spec, "/name").to_owned();
                let role = match (list, text(spec, "/restartPolicy")) {
                    ("containers", _) => Role::Main,
                    (_, "Always") => Role::Sidecar,
                    _ => Role::Init,
                };
                containers.push(Container {
                    field: format!("spec.{list}{{{name}}}"),
                    name,
                    image: text(spec, "/image").to_owned(),
                    role,
                    spec: spec.clone(),
                });
            }
        }
        let policy = match text(&object, "/spec/restartPolicy") {
            "Never" => Restart::Never,
            "OnFailure" => Restart::OnFailure,
            _ => Restart::Always,
        };
        let owned = |pointer| text(&object, pointer).to_owned();
        Self {
            namespace: owned("/metadata/namespace"),
            name: owned("/metadata/name"),
            uid: owned("/metadata/uid"),
            containers,
            policy,
            object,
        }
    }

    /// How long the containers have to end once they are asked to.
    #[must_use]
    pub fn grace(&self) -> Duration {
        let of_deletion = number(&self.object, "/metadata/deletionGracePeriodSeconds");
        let own = number(&self.object, "/spec/terminationGracePeriodSeconds");
        Duration::from_secs(of_deletion.or(own).unwrap_or(GRACE))
    }

    /// How long the pod may run.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        number(&self.object, "/spec/activeDeadlineSeconds").map(Duration::from_secs)
    }

    /// Whether a container that ended is started again.
    #[must_use]
    pub fn restarts(&self, role: Role, exit_code: i64) -> bool {
        match (role, self.policy) {
            (Role::Sidecar, _) | (Role::Main, Restart::Always) => true,
            (Role::Init, Restart::Always | Restart::OnFailure)
            | (Role::Main, Restart::OnFailure) => exit_code != 0,
            (_, Restart::Never) => false,
        }
    }

    /// The volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &Value> {
        self.object.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten()
    }

    /// The group that the volumes of the pod belong to.
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        let group = number(&self.object, "/spec/securityContext/fsGroup")?;
        u32::try_from(group).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_started_again_by_policy_and_role() {
        let plan = |policy: &str| Plan::of(json!({"spec": {"restartPolicy": policy}}));
        let cases = [
            ("Always", Role::Main, [true, true]),
            ("OnFailure", Role::Main, [false, true]),
            ("Never", Role::Main, [false, false]),
            ("Always", Role::Init, [false, true]),
            ("Never", Role::Init, [false, false]),
            ("Never", Role::Sidecar, [true, true]),
        ];
        for (policy, role, wanted) in cases {
            let plan = plan(policy);
            let found = [plan.restarts(role, 0), plan.restarts(role, 3)];
            assert_eq!(found, wanted, "{policy} {role:?}");
        }
    }

    #[test]
    fn init_containers_come_first_and_the_deletion_sets_the_grace() {
        let pod = json!({
            "metadata": {"deletionGracePeriodSeconds": 2},
            "spec": {
                "terminationGracePeriodSeconds": 60,
                "containers": [{"name": "c"}],
                "initContainers": [{"name": "a"}, {"name": "b", "restartPolicy": "Always"}],
            },
        });
        let plan = Plan::of(pod);
        let found: Vec<_> =
            plan.containers.iter().map(|one| (&one.name[..], one.role, &one.field[..])).collect();
        let wanted = [
            ("a", Role::Init, "spec.initContainers{a}"),
            ("b", Role::Sidecar, "spec.initContainers{b}"),
            ("c", Role::Main, "spec.containers{c}"),
        ];
        assert_eq!(found, wanted);
        assert_eq!(plan.grace(), Duration::from_secs(2));
    }
}
