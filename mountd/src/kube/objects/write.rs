//! Creating and changing objects.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{
    Act, Store, Stored, Target, WriteOptions, Written, name_kind, rules, version, with_version,
};
use crate::kube::kinds::Kind;
use crate::kube::meta::{
    self, check_name, drop_empty, drop_nulls, finalizers, generated, is_ending, map_in, new_uid,
    now, set, set_meta, text,
};
use crate::kube::namespace;
use crate::kube::seam::{self, Report};
use crate::kube::status::{Answer, Failure, FieldError};

/// How often a generated name is tried again if it is taken.
const TRIES: usize = 8;

/// Which part of an object a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    Main,
    /// The status alone, with labels, annotations and finalizers.
    Status,
    /// All at once, without a judgement: for the controller.
    Whole,
}

/// What a change makes of an object: of `None` where there is none.
type Change<'a> = dyn Fn(Option<&Value>) -> Answer<Value> + 'a;

impl Store {
    /// Adds an object to a namespace; the name of the target is empty.
    ///
    /// # Errors
    /// A name that is taken, a namespace that does not exist or ends, what admission refuses.
    pub fn create(
        &self,
        target: &Target<'_>,
        body: Value,
        options: &WriteOptions,
    ) -> Answer<Written> {
        let beginning = text(&body, "/metadata/generateName").to_owned();
        let is_generated = text(&body, "/metadata/name").is_empty() && !beginning.is_empty();
        let mut tries = 0;
        loop {
            let mut body = body.clone();
            if is_generated {
                set_meta(&mut body, "name", Some(generated(&beginning).into()));
            }
            tries += 1;
            match self.act(options.is_dry_run, |act| act.create(target, body, options)) {
                Err(failure) if is_generated && tries < TRIES && is_taken(&failure) => {}
                done => return done,
            }
        }
    }

    /// Changes an object; what `change` makes where there is none is created.
    ///
    /// # Errors
    /// Not found, a conflict, what admission refuses, and those of `change`.
    pub fn change(
        &self,
        target: &Target<'_>,
        part: Part,
        options: &WriteOptions,
        change: &Change<'_>,
    ) -> Answer<Written> {
        self.act(options.is_dry_run, |act| match act.find(target)? {
            Some(stored) => {
                let body = change(Some(&stored.object))?;
                act.update(stored, body, part, options)
            }
            None if part == Part::Main => {
                let body = change(None)?;
                act.create(&Target { name: "", ..*target }, body, options)
            }
            None => Err(Failure::not_found(target.kind, target.name)),
        })
    }
}

fn is_taken(failure: &Failure) -> bool {
    failure.reason == "AlreadyExists"
}

/// The warnings of a report, or its refusal.
fn admitted(kind: &'static Kind, name: &str, report: Report) -> Answer<Vec<String>> {
    if !report.errors.is_empty() {
        return Err(Failure::invalid(kind, name, &report.errors));
    }
    Ok(report.warnings)
}

/// The status with which an object begins.
fn first_status(kind: &'static Kind, object: &mut Value) {
    let status = match kind.kind {
        "PersistentVolume" | "PersistentVolumeClaim" => Some(json!({"phase": "Pending"})),
        "Pod" => Some(json!({"phase": "Pending", "qosClass": "BestEffort"})),
        "Namespace" => Some(json!({"phase": "Active"})),
        // A node reports itself.
        "Node" => return,
        _ if kind.has_status => None,
        _ => return,
    };
    set(object, "status", status);
}

/// Moves the texts of a secret to its data, which is in base 64.
fn move_texts(kind: &'static Kind, body: &mut Value) {
    if kind.kind != "Secret" {
        return;
    }
    let texts = body.as_object_mut().and_then(|body| body.remove("stringData"));
    let Some(Value::Object(texts)) = texts else { return };
    if let Some(data) = map_in(body, "data") {
        for (name, text) in texts {
            let text = text.as_str().unwrap_or_default();
            set(data, &name, Some(STANDARD.encode(text).into()));
        }
    }
}

impl Act<'_> {
    pub(in crate::kube) fn create(
        &self,
        target: &Target<'_>,
        mut body: Value,
        options: &WriteOptions,
    ) -> Answer<Written> {
        let kind = target.kind;
        name_kind(kind, &mut body)?;
        let mut warnings = seam::check_fields(kind, &mut body, options)?;
        drop_nulls(&mut body);
        drop_empty(&mut body);
        move_texts(kind, &mut body);
        if !text(&body, "/metadata/resourceVersion").is_empty() {
            let text = "resourceVersion should not be set on objects to be created";
            return Err(Failure::bad_request(text));
        }
        place(target, &mut body)?;
        let name = text(&body, "/metadata/name").to_owned();
        check_name(kind, &name)?;
        namespace::check_open(self, target, &name)?;
        set_meta(&mut body, "uid", Some(new_uid().into()));
        set_meta(&mut body, "creationTimestamp", Some(now().into()));
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            set_meta(&mut body, field, None);
        }
        set_meta(&mut body, "generation", kind.has_generation.then(|| 1.into()));
        first_status(kind, &mut body);
        namespace::begin(kind, &mut body);
        seam::default(kind, &mut body);
        rules::complete(self, kind, &mut body)?;
        warnings.extend(admitted(kind, &name, seam::admit_new(kind, &body))?);
        seam::track((kind, Part::Main), None, &mut body, options);
        let object = self.insert(&Target { name: &name, ..*target }, &body)?;
        // Nothing is stored under a version of a dry run.
        let object = if options.is_dry_run { body } else { object };
        Ok(Written { object, warnings, is_new: true })
    }

    fn update(
        &self,
        stored: Stored,
        mut body: Value,
        part: Part,
        options: &WriteOptions,
    ) -> Answer<Written> {
        let kind = stored.kind;
        name_kind(kind, &mut body)?;
        let mut warnings = seam::check_fields(kind, &mut body, options)?;
        drop_nulls(&mut body);
        drop_empty(&mut body);
        move_texts(kind, &mut body);
        let target = Target { kind, namespace: &stored.key.namespace, name: &stored.key.name };
        place(&target, &mut body)?;
        check_versions(&stored, &body)?;
        keep_system_fields(&stored.object, &mut body);
        keep_other_part(kind, &stored.object, &mut body, part);
        if part == Part::Main {
            seam::default(kind, &mut body);
        }
        if part != Part::Whole {
            let mut report = seam::admit_change(kind, &stored.object, &body);
            report.errors.extend(new_finalizers(&stored.object, &body));
            warnings.extend(admitted(kind, &stored.key.name, report)?);
            rules::check_growth(self, &stored, &body)?;
        }
        seam::track((kind, part), Some(&stored.object), &mut body, options);
        count_generation(kind, &stored.object, &mut body);
        let object = self.save(&stored, &body)?;
        // As for a new object.
        let object = match options.is_dry_run {
            true => with_version(object, stored.version),
            false => object,
        };
        let object = if is_over(&object) { self.finish(&target)? } else { object };
        Ok(Written { object, warnings, is_new: false })
    }

    /// Removes an object that nothing holds any more, and returns it as it was last.
    fn finish(&self, target: &Target<'_>) -> Answer<Value> {
        let stored = self.get(target)?;
        self.erase(&stored)
    }
}

/// Whether nothing holds an object that is being deleted.
pub(super) fn is_over(object: &Value) -> bool {
    let grace = meta::meta(object, "deletionGracePeriodSeconds").and_then(Value::as_u64);
    is_ending(object)
        && grace.unwrap_or(0) == 0
        && finalizers(object).is_empty()
        && !namespace::is_held(object)
}

/// Checks the name and the namespace of a body against those of the request.
fn place(target: &Target<'_>, body: &mut Value) -> Answer<()> {
    let kind = target.kind;
    let name = text(body, "/metadata/name").to_owned();
    if !target.name.is_empty() && name != target.name {
        if !name.is_empty() {
            let wanted = target.name;
            let text = format!(
                "the name of the object ({name}) does not match the name on the URL ({wanted})"
            );
            return Err(Failure::bad_request(text));
        }
        set_meta(body, "name", Some(target.name.into()));
    }
    let found = text(body, "/metadata/namespace").to_owned();
    if found == target.namespace {
        return Ok(());
    }
    if found.is_empty() || !kind.is_namespaced {
        let namespace = kind.is_namespaced.then(|| target.namespace.into());
        set_meta(body, "namespace", namespace);
        return Ok(());
    }
    let text = format!(
        "the namespace of the provided object does not match the namespace sent on the request \
         ({found}, {})",
        target.namespace
    );
    Err(Failure::bad_request(text))
}

/// Checks the id and the version that the client expects.
fn check_versions(stored: &Stored, body: &Value) -> Answer<()> {
    let (kind, name) = (stored.kind, &stored.key.name);
    let uid = text(body, "/metadata/uid");
    if !uid.is_empty() && uid != stored.uid {
        let found = &stored.uid;
        let text =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Failure::conflict(kind, name, &text));
    }
    let expected = text(body, "/metadata/resourceVersion");
    if expected.is_empty() || expected == "0" || version(expected)? == stored.version {
        return Ok(());
    }
    Err(Failure::changed(kind, name))
}

/// Takes over what no client changes.
fn keep_system_fields(old: &Value, body: &mut Value) {
    let fields = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ];
    for field in fields {
        set_meta(body, field, meta::meta(old, field).cloned());
    }
    set_meta(body, "selfLink", None);
    for field in ["generateName", "managedFields"] {
        if meta::meta(body, field).is_none() {
            set_meta(body, field, meta::meta(old, field).cloned());
        }
    }
}

/// Takes over the part that the request does not write.
fn keep_other_part(kind: &'static Kind, old: &Value, body: &mut Value, part: Part) {
    if kind.kind == "Namespace" {
        // Its finalizers are not the client's.
        set(body, "spec", old.get("spec").cloned());
    }
    if !kind.has_status || part == Part::Whole {
        return;
    }
    if part == Part::Main {
        set(body, "status", old.get("status").cloned());
        return;
    }
    let mut new = old.clone();
    set(&mut new, "status", body.get("status").cloned());
    set(&mut new, "metadata", body.get("metadata").cloned());
    *body = new;
}

fn new_finalizers(old: &Value, new: &Value) -> Vec<FieldError> {
    if !is_ending(old) {
        return Vec::new();
    }
    let before = finalizers(old);
    let added: Vec<String> =
        finalizers(new).into_iter().filter(|one| !before.contains(one)).collect();
    if added.is_empty() {
        return Vec::new();
    }
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers \
         []string{{{}}}",
        added.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ")
    );
    vec![FieldError::forbidden("metadata.finalizers", &detail)]
}

fn count_generation(kind: &'static Kind, old: &Value, body: &mut Value) {
    if !kind.has_generation {
        return;
    }
    let rest = |object: &Value| {
        let mut object = object.clone();
        set(&mut object, "metadata", None);
        set(&mut object, "status", None);
        object
    };
    if rest(old) != rest(body) {
        let count = meta::meta(old, "generation").and_then(Value::as_u64).unwrap_or(0);
        set_meta(body, "generation", Some((count + 1).into()));
    }
}
