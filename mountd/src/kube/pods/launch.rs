//! A container of a pod as the OCI runtime gets it. All of them use the network of the host.

use std::path::Path;

use serde_json::{Value, json};

use super::env::Variables;
use super::fault::Fault;
use super::plan::{Container, Plan};
use crate::container::launch::{self, Launch, PATH, own_capabilities};
use crate::container::user::User;
use crate::kube::meta::{set, text};

/// The most bytes of command, arguments and variables together. The kernel takes as many
/// (execve(2)); variables that many arguments name would otherwise grow without a bound.
const WORDS_MAX: usize = 2 << 20;
/// What a word takes besides its bytes: its end and its address.
const WORD: usize = 9;
/// The period of processor quotas, in microseconds.
const PERIOD: u64 = 100_000;

fn flag(container: &Container, name: &str) -> Option<bool> {
    container.spec.pointer(&format!("/securityContext/{name}")).and_then(Value::as_bool)
}

fn list(object: &Value, pointer: &str) -> Option<Vec<String>> {
    let list = object.pointer(pointer)?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// What is left of [`WORDS_MAX`].
struct Room(usize);

impl Room {
    /// Takes room for a word; without one, it has outgrown what is left.
    fn take(&mut self, word: Option<String>) -> Result<String, Fault> {
        let many = "command, args and variables have more than";
        let many = || Fault::new(format!("{many} {WORDS_MAX} bytes: the kernel takes no more"));
        let word = word.ok_or_else(many)?;
        self.0 = self.0.checked_sub(word.len() + WORD).ok_or_else(many)?;
        Ok(word)
    }

    fn take_all(&mut self, words: Vec<String>) -> Result<Vec<String>, Fault> {
        words.into_iter().map(|word| self.take(Some(word))).collect()
    }
}

/// Command and arguments: those of the pod, where it has them, else those of the image.
///
/// # Errors
/// There are none, or they grow beyond what is left for them.
fn command(
    container: &Container,
    image: &Value,
    variables: &Variables,
    room: &mut Room,
) -> Result<Vec<String>, Fault> {
    let own = |name| list(&container.spec, name).filter(|list| !list.is_empty());
    let (own_command, own_args) = (own("/command"), own("/args"));
    let of_image = |name| list(image, name).unwrap_or_default();
    let mut words = Vec::new();
    let expanded = |words: &[String], room: &mut Room| -> Result<Vec<_>, Fault> {
        words.iter().map(|word| room.take(variables.expand_within(word, room.0))).collect()
    };
    match &own_command {
        Some(command) => words.extend(expanded(command, room)?),
        None => words.extend(room.take_all(of_image("/config/Entrypoint"))?),
    }
    match (&own_args, &own_command) {
        (Some(args), _) => words.extend(expanded(args, room)?),
        (None, None) => words.extend(room.take_all(of_image("/config/Cmd"))?),
        (None, Some(_)) => {}
    }
    if words.is_empty() {
        return Err(Fault::new("no command specified"));
    }
    Ok(words)
}

/// The capabilities of a container: a subset of `own`, since nobody can give more.
fn capabilities(container: &Container, has_cgroup: bool, own: u64) -> Vec<String> {
    let of = |name: &str| -> Vec<String> {
        let listed = list(&container.spec, &format!("/securityContext/capabilities/{name}"));
        let listed = listed.unwrap_or_default().into_iter();
        listed.map(|one| one.trim_start_matches("CAP_").to_uppercase()).collect()
    };
    let (added, dropped) = (of("add"), of("drop"));
    let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
    let is_whole = flag(container, "privileged") == Some(true) || has(&added, "ALL");
    launch::capabilities(has_cgroup, own, |name, is_usual| {
        let is_dropped = has(&dropped, name) || (has(&dropped, "ALL") && !is_whole);
        has(&added, name) || ((is_whole || is_usual) && !is_dropped)
    })
}

/// Thousandths of a processor.
fn milli(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(number) => number.parse().ok(),
        None => {
            let (whole, part) = text.split_once('.').unwrap_or((text, ""));
            let part: String = format!("{part}000").chars().take(3).collect();
            Some(whole.parse::<u64>().ok()?.saturating_mul(1000) + part.parse::<u64>().ok()?)
        }
    }
}

/// Limits of memory and processors.
fn resources(container: &Container) -> Value {
    let amount = |pointer: &str| container.spec.pointer(pointer).and_then(Value::as_str);
    let mut found = json!({});
    let bytes = super::files::limit(&container.spec, "/resources/limits/memory");
    if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
        set(&mut found, "memory", Some(json!({"limit": bytes})));
    }
    let mut cpu = json!({});
    if let Some(quota) = amount("/resources/limits/cpu").and_then(milli) {
        set(&mut cpu, "quota", Some(json!((quota.saturating_mul(PERIOD) / 1000).max(1000))));
        set(&mut cpu, "period", Some(json!(PERIOD)));
    }
    if let Some(shares) = amount("/resources/requests/cpu").and_then(milli) {
        set(
            &mut cpu,
            "shares",
            Some(json!((shares.saturating_mul(1024) / 1000).clamp(2, 262_144))),
        );
    }
    set(&mut found, "cpu", Some(cpu));
    found
}

/// Describes a container whose root is mounted.
///
/// # Errors
/// No command, or one that is too long.
pub fn of_pod(
    (plan, container): (&Plan, &Container),
    image: &Value,
    (variables, user): (&Variables, User),
    (root, id): (&Path, String),
    has_cgroup: bool,
) -> Result<Launch, Fault> {
    let spec = |pointer: &str| plan.object.pointer(pointer).and_then(Value::as_bool);
    let hostname = match text(&plan.object, "/spec/hostname") {
        "" => &plan.name,
        name => name,
    };
    let cwd = [text(&container.spec, "/workingDir"), text(image, "/config/WorkingDir"), "/"];
    let mut env = variables.lines();
    let has = |name: &str, env: &[String]| env.iter().any(|one| one.starts_with(name));
    if !has("PATH=", &env) {
        env.push(PATH.to_owned());
    }
    if !has("HOME=", &env) {
        env.push(format!("HOME={}", user.home.as_deref().unwrap_or("/")));
    }
    if !has("HOSTNAME=", &env) {
        env.push(format!("HOSTNAME={hostname}"));
    }
    let mut room = Room(WORDS_MAX);
    let env = room.take_all(env)?;
    let args = command(container, image, variables, &mut room)?;
    let is_privileged = flag(container, "privileged") == Some(true);
    Ok(Launch {
        id,
        root: root.to_owned(),
        args,
        env,
        cwd: cwd.into_iter().find(|cwd| !cwd.is_empty()).unwrap_or("/").to_owned(),
        user,
        hostname: hostname.chars().take(63).collect(),
        binds: Vec::new(),
        read_only: flag(container, "readOnlyRootFilesystem") == Some(true),
        may_gain: flag(container, "allowPrivilegeEscalation") != Some(false),
        is_privileged,
        capabilities: capabilities(container, has_cgroup, own_capabilities()),
        of_host: ["/spec/hostPID", "/spec/hostIPC"].map(|at| spec(at) == Some(true)),
        resources: resources(container),
        is_offline: false,
        has_terminal: false,
        badness: match text(&plan.object, "/status/qosClass") {
            "Guaranteed" => 0,
            "Burstable" => 500,
            _ => 1000,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(spec: Value) -> Container {
        let pod = json!({"spec": {"containers": [spec]}});
        Plan::of(pod).containers.remove(0)
    }

    #[test]
    fn the_command_of_the_pod_replaces_that_of_the_image() {
        let image = json!({"config": {"Entrypoint": ["e"], "Cmd": ["c"]}});
        let variables = Variables::default();
        let of = |spec: Value| {
            let mut room = Room(WORDS_MAX);
            command(&container(spec), &image, &variables, &mut room).unwrap().join(" ")
        };
        assert_eq!(of(json!({})), "e c");
        assert_eq!(of(json!({"args": ["a"]})), "e a");
        assert_eq!(of(json!({"command": ["x"]})), "x");
        assert_eq!(of(json!({"command": ["x"], "args": ["a"]})), "x a");
        command(&container(json!({})), &json!({}), &variables, &mut Room(9)).unwrap_err();
    }

    #[test]
    fn all_words_of_a_command_share_one_bound() {
        let mut variables = Variables::default();
        variables.set("A", "x".repeat(900_000)).unwrap();
        let of = |count: usize| {
            let spec = json!({"command": ["x"], "args": vec!["$(A)"; count]});
            command(&container(spec), &json!({}), &variables, &mut Room(WORDS_MAX))
        };
        assert_eq!(of(2).unwrap().len(), 3);
        let error = of(400).unwrap_err().to_string();
        assert!(error.contains("more than 2097152 bytes"), "{error}");
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let of = |context: Value, has_cgroup, own| {
            let container = container(json!({"securityContext": context}));
            capabilities(&container, has_cgroup, own)
        };
        assert!(of(json!({}), true, u64::MAX).contains(&"MKNOD".to_owned()));
        assert!(!of(json!({}), false, u64::MAX).contains(&"MKNOD".to_owned()));
        let some = json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NONSENSE"]}});
        assert_eq!(of(some, true, u64::MAX), ["NET_ADMIN"]);
        assert_eq!(of(json!({"privileged": true}), false, u64::MAX).len(), 41);
        // CAP_CHOWN and CAP_NET_ADMIN alone.
        assert_eq!(of(json!({"privileged": true}), true, 1 << 12 | 1), ["CHOWN", "NET_ADMIN"]);
        assert_eq!(of(json!({}), true, 1 << 12 | 1), ["CHOWN"]);
    }

    #[test]
    fn processors_are_read_in_thousandths() {
        let cases = [("500m", Some(500)), ("2", Some(2000)), ("0.25", Some(250)), ("x", None)];
        for (text, wanted) in cases {
            assert_eq!(milli(text), wanted, "{text}");
        }
    }
}
