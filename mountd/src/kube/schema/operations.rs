//! The paths of the API server and the operations on each, apart from the version of OpenAPI.
//!
//! `kubectl` looks here for what a server can do: it asks for a dry run, or leaves validation to
//! the server, only if the operation that patches a kind has the parameter.

use super::kinds::Kind;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// One path with its operations.
pub(super) struct Path {
    pub(super) path: String,
    /// The parameters within the path, such as `namespace`.
    pub(super) parameters: Vec<Parameter>,
    pub(super) operations: Vec<Operation>,
}

/// What a client may do at a path.
pub(super) struct Operation {
    /// The method of HTTP in small letters.
    pub(super) method: &'static str,
    /// The word of `x-kubernetes-action`.
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) description: String,
    pub(super) parameters: Vec<Parameter>,
    /// The definition of the request's body.
    pub(super) body: Option<String>,
    /// The definition of the answer; a text without one.
    pub(super) answer: Option<String>,
    /// The codes of success.
    pub(super) codes: &'static [&'static str],
}

/// A parameter of the path or of the query.
#[derive(Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `path` or `query`.
    pub(super) place: &'static str,
    /// `string`, `integer` or `boolean`.
    pub(super) of: &'static str,
    pub(super) description: &'static str,
}

const fn query(name: &'static str, of: &'static str, description: &'static str) -> Parameter {
    Parameter { name, place: "query", of, description }
}

const NAMESPACE: Parameter = Parameter {
    name: "namespace",
    place: "path",
    of: "string",
    description: "the namespace of the objects",
};
const NAME: Parameter =
    Parameter { name: "name", place: "path", of: "string", description: "the object's name" };
const PRETTY: Parameter = query("pretty", "string", "\"true\" asks for an indented answer");
const DRY_RUN: Parameter =
    query("dryRun", "string", "\"All\" carries the request out and keeps nothing of it");
const GRACE: Parameter =
    query("gracePeriodSeconds", "integer", "the seconds between the request and the deletion");
const PROPAGATION: Parameter =
    query("propagationPolicy", "string", "what becomes of dependents: Orphan, Background, ...");
const ORPHAN: Parameter = query("orphanDependents", "boolean", "deprecated: see propagationPolicy");

const WRITE: [Parameter; 3] = [
    DRY_RUN,
    query("fieldManager", "string", "the name under which the changed fields are recorded"),
    query("fieldValidation", "string", "unknown and duplicate fields: Ignore, Warn or Strict"),
];

const LIST: [Parameter; 10] = [
    query("allowWatchBookmarks", "boolean", "asks a watch for events of type BOOKMARK"),
    query("continue", "string", "the mark at which the last answer ended"),
    query("fieldSelector", "string", "restricts the objects by their fields"),
    query("labelSelector", "string", "restricts the objects by their labels"),
    query("limit", "integer", "the most objects of one answer"),
    query("resourceVersion", "string", "the version that the answer is at least of"),
    query("resourceVersionMatch", "string", "how resourceVersion is taken"),
    query("sendInitialEvents", "boolean", "begins a watch with the objects that exist"),
    query("timeoutSeconds", "integer", "ends the request after this time"),
    query("watch", "boolean", "answers with the changes, as they happen"),
];

/// The paths of a kind.
pub(super) fn paths_of(kind: &Kind) -> Vec<Path> {
    let root = format!("/{}", kind.root());
    let (base, outer) = if kind.namespaced {
        (format!("{root}/namespaces/{{namespace}}/{}", kind.plural), vec![NAMESPACE])
    } else {
        (format!("{root}/{}", kind.plural), Vec::new())
    };
    let inner = || outer.iter().copied().chain([NAME]).collect::<Vec<_>>();
    let one = format!("{base}/{{name}}");
    let mut paths = vec![
        Path { path: base, parameters: outer.clone(), operations: on_all(kind) },
        Path { path: one.clone(), parameters: inner(), operations: on_one(kind) },
    ];
    if kind.has_status {
        let operations = vec![
            read(kind, "Status", "status of the"),
            replace(kind, "Status", "status of the"),
            patch(kind, "Status", "status of the"),
        ];
        paths.push(Path { path: format!("{one}/status"), parameters: inner(), operations });
    }
    if kind.kind == "Pod" {
        let mut log = read(kind, "Log", "log of the");
        log.answer = None;
        paths.push(Path { path: format!("{one}/log"), parameters: inner(), operations: vec![log] });
    }
    if kind.namespaced {
        let mut list = list(kind);
        list.id = id("list", kind, "ForAllNamespaces").replace("Namespaced", "");
        let path = format!("{root}/{}", kind.plural);
        paths.push(Path { path, parameters: Vec::new(), operations: vec![list] });
    }
    paths
}

fn on_all(kind: &Kind) -> Vec<Operation> {
    let mut create = operation("post", "post", id("create", kind, ""));
    create.description = format!("create a {}", kind.kind);
    create.parameters.extend(WRITE);
    create.body = Some(kind.definition());
    create.answer = Some(kind.definition());
    create.codes = &["200", "201", "202"];
    let mut clear = operation("delete", "deletecollection", id("deleteCollection", kind, ""));
    clear.description = format!("delete a collection of {}", kind.kind);
    clear.parameters.extend(LIST);
    clear.parameters.extend([DRY_RUN, GRACE, ORPHAN, PROPAGATION]);
    clear.body = Some(format!("{META}.DeleteOptions"));
    clear.answer = Some(format!("{META}.Status"));
    vec![list(kind), create, clear]
}

fn on_one(kind: &Kind) -> Vec<Operation> {
    let mut delete = operation("delete", "delete", id("delete", kind, ""));
    delete.description = format!("delete a {}", kind.kind);
    delete.parameters.extend([DRY_RUN, GRACE, ORPHAN, PROPAGATION]);
    delete.body = Some(format!("{META}.DeleteOptions"));
    delete.answer = Some(format!("{META}.Status"));
    delete.codes = &["200", "202"];
    vec![
        read(kind, "", "specified"),
        replace(kind, "", "specified"),
        patch(kind, "", "specified"),
        delete,
    ]
}

fn list(kind: &Kind) -> Operation {
    let mut list = operation("get", "list", id("list", kind, ""));
    list.description = format!("list or watch objects of kind {}", kind.kind);
    list.parameters.extend(LIST);
    list.answer = Some(format!("{}List", kind.definition()));
    list
}

fn read(kind: &Kind, part: &str, words: &str) -> Operation {
    let mut read = operation("get", "get", id("read", kind, part));
    read.description = format!("read the {words} {}", kind.kind);
    read.answer = Some(kind.definition());
    read
}

fn replace(kind: &Kind, part: &str, words: &str) -> Operation {
    let mut replace = operation("put", "put", id("replace", kind, part));
    replace.description = format!("replace the {words} {}", kind.kind);
    replace.parameters.extend(WRITE);
    replace.body = Some(kind.definition());
    replace.answer = Some(kind.definition());
    replace.codes = &["200", "201"];
    replace
}

fn patch(kind: &Kind, part: &str, words: &str) -> Operation {
    let mut patch = operation("patch", "patch", id("patch", kind, part));
    patch.description = format!("partially update the {words} {}", kind.kind);
    patch.parameters.extend(WRITE);
    patch.parameters.push(query("force", "boolean", "takes over the fields of other managers"));
    patch.body = Some(format!("{META}.Patch"));
    patch.answer = Some(kind.definition());
    patch.codes = &["200", "201"];
    patch
}

fn operation(method: &'static str, action: &'static str, id: String) -> Operation {
    Operation {
        method,
        action,
        id,
        description: String::new(),
        parameters: vec![PRETTY],
        body: None,
        answer: None,
        codes: &["200"],
    }
}

/// The name of an operation, such as `readCoreV1NamespacedPodStatus`.
fn id(verb: &str, kind: &Kind, part: &str) -> String {
    let scope = if kind.namespaced { "Namespaced" } else { "" };
    format!("{verb}{}V1{scope}{}{part}", tag(kind), kind.kind)
}

/// The group in the name of an operation, such as `Core` or `SnapshotStorage`.
pub(super) fn tag(kind: &Kind) -> &'static str {
    match kind.group {
        "" => "Core",
        "storage.k8s.io" => "Storage",
        _ => "SnapshotStorage",
    }
}
