//! Requests: discovery, health, and the verbs of objects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use serde_json::Value;

use super::answer::{self, View};
use super::negotiate::{self, Shape};
use super::route::{Parameters, Place, Review, Route};
use super::{Api, Caller, discovery, log, watch};
use crate::kube::objects::{
    DeleteOptions, ListOptions, Part, Target, Unknown, WriteOptions, Written,
};
use crate::kube::seam;
use crate::kube::select::{Fields, Filter, Labels};
use crate::kube::status::{Answer, Failure};
use crate::kube::table::Include;
use crate::serve::metrics::Outcome;

/// The longest body.
const BODY_MAX: usize = 3 << 20;
/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// The longest name of a field manager.
const MANAGER_MAX: usize = 128;

/// A request for objects, read as far as its head goes.
pub struct Call {
    /// Which objects.
    pub place: Place,
    /// The parameters.
    pub parameters: Parameters,
    /// How the answer is shown.
    pub view: View,
    headers: HeaderMap,
}

/// Answers a request.
pub async fn handle(api: Arc<Api>, caller: Caller, request: Request<Body>) -> Response<Body> {
    let start = Instant::now();
    let metrics = Arc::clone(&api.metrics);
    let call = request.method().as_str().to_ascii_lowercase();
    let is_pretty = Parameters::parse(request.uri().query().unwrap_or_default()).is_pretty();
    let view = View { is_pretty, ..View::default() };
    let answered = route(api, caller, request).await;
    let answer = answered.unwrap_or_else(|failure| answer::failed(&failure, view));
    let outcome = if answer.status().is_server_error() { Outcome::Error } else { Outcome::Ok };
    metrics.answered("kube", &call, outcome, start.elapsed());
    answer
}

impl Parameters {
    fn is_pretty(&self) -> bool {
        !self.value("pretty").is_empty() && self.is_true("pretty")
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn not_allowed() -> Failure {
    let text = "the server does not allow this method on the requested resource";
    Failure::new(405, "MethodNotAllowed", text)
}

async fn route(api: Arc<Api>, caller: Caller, request: Request<Body>) -> Answer<Response<Body>> {
    let accept = header(request.headers(), &ACCEPT).to_owned();
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default());
    let mut view = View { is_pretty: parameters.is_pretty(), ..View::default() };
    let route = Route::parse(request.uri().path());
    if let Route::Objects(place) = route {
        view.shape = Shape::choose(&accept, |shape| !matches!(shape, Shape::Discovery(_)))?;
        let include = Include::parse(parameters.value("includeObject"));
        view.include = include.ok_or_else(|| Failure::bad_request("invalid includeObject"))?;
        let (head, body) = request.into_parts();
        let call = Call { place, parameters, view, headers: head.headers };
        return objects(api, caller, call, (head.method, body)).await;
    }
    if let (Route::Review(about), true) = (&route, request.method() == Method::POST) {
        let (about, (head, body)) = (*about, request.into_parts());
        return review(about, (&head.headers, body), view).await;
    }
    if route != Route::Nowhere && !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(not_allowed());
    }
    let document = match route {
        Route::Health => return Ok(answer::raw(200, "text/plain; charset=utf-8", "ok")),
        Route::OpenApi(path) => {
            let found = seam::openapi(&path, &accept).ok_or_else(Failure::no_path)?;
            return Ok(answer::raw(200, found.media_type, found.body.into_owned()));
        }
        Route::Release => Some(discovery::release()),
        Route::Api | Route::Apis => {
            view.shape = Shape::choose(&accept, |shape| matches!(shape, Shape::Discovery(_)))?;
            let is_core = route == Route::Api;
            Some(match view.shape {
                Shape::Discovery(form) => discovery::aggregated(is_core, form),
                _ if is_core => discovery::core(api.address),
                _ => discovery::groups(),
            })
        }
        Route::Group(name) => discovery::group(&name),
        Route::Version(group, version) => discovery::version(&group, &version),
        Route::Objects(_) | Route::Review(_) | Route::Nowhere => None,
    };
    let document = document.ok_or_else(Failure::no_path)?;
    Ok(answer::json(200, &document, view))
}

/// Answers a question of a client about itself.
async fn review(
    about: Review,
    (headers, body): (&HeaderMap, Body),
    view: View,
) -> Answer<Response<Body>> {
    let bytes = read(headers, body).await?;
    // kubectl sends some of these questions in protobuf: the answers do not depend on them.
    let asked = serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
    let asked = asked.get("spec").cloned().unwrap_or_else(|| serde_json::json!({}));
    let answer = match about {
        Review::Access => discovery::review(&asked),
        Review::Rules => discovery::rules(&asked),
        Review::User => discovery::whoami(),
    };
    Ok(answer::json(201, &answer, view))
}

async fn objects(
    api: Arc<Api>,
    caller: Caller,
    call: Call,
    (method, body): (Method, Body),
) -> Answer<Response<Body>> {
    let is_log = call.place.below.as_deref() == Some("log") && call.place.kind.kind == "Pod";
    if is_log && method == Method::GET {
        return log::serve(api, caller, call).await;
    }
    let part = match call.place.below.as_deref() {
        None => Part::Main,
        Some("status") if call.place.kind.has_status => Part::Status,
        Some(_) => return Err(Failure::no_path()),
    };
    match (method.as_str(), call.place.name.is_some()) {
        ("GET", _) if call.parameters.is_true("watch") && part == Part::Main => {
            watch::start(api, caller, call).await
        }
        ("GET", true) => get(&api, call).await,
        ("GET", false) => list(&api, call).await,
        ("POST", false) => create(&api, call, body).await,
        ("PUT", true) => update(&api, call, part, body).await,
        ("PATCH", true) => patch(&api, call, part, body).await,
        ("DELETE", true) if part == Part::Main => delete(&api, call, body).await,
        ("DELETE", false) => delete_all(&api, call, body).await,
        (_, is_object) => {
            let mut answer = answer::failed(&not_allowed(), call.view);
            let allowed = if is_object { "GET, PUT, PATCH, DELETE" } else { "GET, POST, DELETE" };
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            Ok(answer)
        }
    }
}

async fn read(headers: &HeaderMap, body: Body) -> Answer<Vec<u8>> {
    let too_large = || Failure::too_large(&format!("limit is {BODY_MAX}"));
    let declared = header(headers, &axum::http::header::CONTENT_LENGTH).parse::<usize>();
    if declared.is_ok_and(|len| len > BODY_MAX) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_LIMIT, axum::body::to_bytes(body, BODY_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            if source.is_some_and(|source| source.contains("length limit")) {
                return Err(too_large());
            }
            Err(Failure::bad_request(format!("the body is broken: {error}")))
        }
        Err(_) => {
            let seconds = BODY_LIMIT.as_secs();
            let text = format!("the body did not arrive within {seconds} s");
            Err(Failure::new(408, "Timeout", text))
        }
    }
}

fn media_type(call: &Call) -> &str {
    header(&call.headers, &CONTENT_TYPE)
}

fn is_dry_run(parameters: &Parameters) -> Answer<bool> {
    let mut is_dry = false;
    for value in parameters.values("dryRun").filter(|value| !value.is_empty()) {
        if value != "All" {
            let text = format!("dryRun: Unsupported value: {value:?}: supported values: \"All\"");
            return Err(Failure::bad_request(text));
        }
        is_dry = true;
    }
    Ok(is_dry)
}

fn write_options(call: &Call) -> Answer<WriteOptions> {
    let parameters = &call.parameters;
    let unknown = match parameters.value("fieldValidation") {
        "" | "Warn" => Unknown::Warn,
        "Ignore" => Unknown::Ignore,
        "Strict" => Unknown::Refuse,
        other => {
            let text = format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \
                 \"Strict\", \"Warn\""
            );
            return Err(Failure::bad_request(text));
        }
    };
    let mut manager = parameters.value("fieldManager").to_owned();
    if manager.len() > MANAGER_MAX {
        return Err(Failure::bad_request(format!("fieldManager: more than {MANAGER_MAX} bytes")));
    }
    if manager.is_empty() {
        // The name of the program, as far as the client says it.
        let agent = header(&call.headers, &axum::http::header::USER_AGENT);
        let name = agent.split('/').next().unwrap_or_default();
        manager = name.chars().take(MANAGER_MAX).collect();
    }
    let is_forced = !parameters.value("force").is_empty() && parameters.is_true("force");
    let is_dry_run = is_dry_run(parameters)?;
    Ok(WriteOptions { is_dry_run, manager, is_forced, unknown, ..WriteOptions::default() })
}

/// The options of a list or a watch.
pub fn list_options(call: &Call) -> Answer<ListOptions> {
    let parameters = &call.parameters;
    let kind = call.place.kind;
    let limit = parameters.value("limit");
    let limit = if limit.is_empty() { Ok(0) } else { limit.parse() };
    let limit = limit.map_err(|_| Failure::bad_request("limit: use a whole number from 0 up"))?;
    let filter = Filter {
        namespace: call.place.namespace.clone(),
        labels: Labels::parse(parameters.value("labelSelector"))?,
        fields: match &call.place.name {
            Some(name) => Fields::name(name),
            None => Fields::parse(kind, parameters.value("fieldSelector"))?,
        },
    };
    Ok(ListOptions {
        filter,
        limit,
        token: parameters.value("continue").to_owned(),
        version: parameters.value("resourceVersion").to_owned(),
        version_match: parameters.value("resourceVersionMatch").to_owned(),
    })
}

fn written(call: &Call, written: Written) -> Response<Body> {
    let code = if written.is_new { 201 } else { 200 };
    let shown = answer::object(call.place.kind, written.object, call.view);
    let mut answer = answer::json(code, &shown, call.view);
    answer::warn(&mut answer, &written.warnings);
    answer
}

/// The parts of a target that can move to a thread.
fn target_parts(call: &Call) -> (String, String) {
    let Place { namespace, name, .. } = &call.place;
    (namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default())
}

async fn get(api: &Api, call: Call) -> Answer<Response<Body>> {
    let (namespace, name) = target_parts(&call);
    let kind = call.place.kind;
    let found =
        api.run(move |store| store.get(&Target { kind, namespace: &namespace, name: &name }));
    Ok(answer::json(200, &answer::object(kind, found.await?, call.view), call.view))
}

async fn list(api: &Api, call: Call) -> Answer<Response<Body>> {
    let options = list_options(&call)?;
    let (kind, view) = (call.place.kind, call.view);
    let shown = api.run(move |store| {
        let list = answer::list(kind, store.list(kind, &options)?, view);
        Ok(answer::json(200, &list, view))
    });
    shown.await
}

async fn create(api: &Api, call: Call, body: Body) -> Answer<Response<Body>> {
    let mut options = write_options(&call)?;
    let kind = call.place.kind;
    if kind.is_namespaced && call.place.namespace.is_none() {
        return Err(not_allowed());
    }
    let bytes = read(&call.headers, body).await?;
    options.duplicates = seam::duplicate_fields(&bytes);
    let value = negotiate::parse(media_type(&call), &bytes)?;
    let (namespace, _) = target_parts(&call);
    let done = api.run(move |store| {
        store.create(&Target { kind, namespace: &namespace, name: "" }, value, &options)
    });
    Ok(written(&call, done.await?))
}

async fn update(api: &Api, call: Call, part: Part, body: Body) -> Answer<Response<Body>> {
    let mut options = write_options(&call)?;
    let kind = call.place.kind;
    let bytes = read(&call.headers, body).await?;
    options.duplicates = seam::duplicate_fields(&bytes);
    let value = negotiate::parse(media_type(&call), &bytes)?;
    let (namespace, name) = target_parts(&call);
    let done = api.run(move |store| {
        let target = Target { kind, namespace: &namespace, name: &name };
        store.change(&target, part, &options, &|current| match current {
            Some(_) => Ok(value.clone()),
            None => Err(Failure::not_found(kind, &name)),
        })
    });
    Ok(written(&call, done.await?))
}

/// Checks what only server-side apply needs: a manager, and the version of the fields.
fn check_applied(call: &Call, applied: &Value) -> Answer<()> {
    if call.parameters.value("fieldManager").is_empty() {
        let text = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is \
                    required for apply patch";
        return Err(Failure::new(422, "Invalid", text));
    }
    let found = applied.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let wanted = call.place.kind.api_version();
    if found == wanted {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "Incorrect version specified in apply patch. Specified patch version: {found}, expected: \
         {wanted}"
    )))
}

async fn patch(api: &Api, call: Call, part: Part, body: Body) -> Answer<Response<Body>> {
    let mut options = write_options(&call)?;
    let kind = call.place.kind;
    let bytes = read(&call.headers, body).await?;
    let (form, value) = negotiate::parse_patch(media_type(&call), &bytes)?;
    options.duplicates = seam::duplicate_fields(&bytes);
    options.is_applied = form == seam::PatchForm::Apply;
    if options.is_applied {
        check_applied(&call, &value)?;
    }
    let (namespace, name) = target_parts(&call);
    let done = api.run(move |store| {
        let target = Target { kind, namespace: &namespace, name: &name };
        store.change(&target, part, &options, &|current| {
            if current.is_none() && form != seam::PatchForm::Apply {
                return Err(Failure::not_found(kind, &name));
            }
            seam::patched((kind, part), form, current, &value, &options)
        })
    });
    Ok(written(&call, done.await?))
}

/// The options of a deletion: those of the body, and those of the parameters over them.
fn delete_options(call: &Call, bytes: &[u8]) -> Answer<DeleteOptions> {
    let mut body = match bytes {
        [] => Value::Null,
        bytes => negotiate::parse(media_type(call), bytes)?,
    };
    if body.is_null() {
        body = serde_json::json!({});
    }
    let parameters = &call.parameters;
    if let Some(map) = body.as_object_mut() {
        let policy = parameters.value("propagationPolicy");
        if !policy.is_empty() {
            map.insert("propagationPolicy".to_owned(), policy.into());
        }
        let grace = parameters.value("gracePeriodSeconds");
        if !grace.is_empty() {
            let grace: i64 = grace
                .parse()
                .map_err(|_| Failure::bad_request("gracePeriodSeconds is not a number"))?;
            map.insert("gracePeriodSeconds".to_owned(), grace.into());
        }
    }
    let mut options = DeleteOptions::parse(&body)?;
    options.is_dry_run |= is_dry_run(parameters)?;
    Ok(options)
}

async fn delete(api: &Api, call: Call, body: Body) -> Answer<Response<Body>> {
    let bytes = read(&call.headers, body).await?;
    let options = delete_options(&call, &bytes)?;
    let (namespace, name) = target_parts(&call);
    let kind = call.place.kind;
    let done = api.run(move |store| {
        store.delete(&Target { kind, namespace: &namespace, name: &name }, &options)
    });
    let shown = match done.await? {
        status if status.get("kind").and_then(Value::as_str) == Some("Status") => status,
        object => answer::object(kind, object, call.view),
    };
    Ok(answer::json(200, &shown, call.view))
}

async fn delete_all(api: &Api, call: Call, body: Body) -> Answer<Response<Body>> {
    let list = list_options(&call)?;
    let kind = call.place.kind;
    if kind.is_namespaced && call.place.namespace.is_none() {
        return Err(not_allowed());
    }
    let bytes = read(&call.headers, body).await?;
    let options = delete_options(&call, &bytes)?;
    let gone = api.run(move |store| {
        let items = store.delete_all(kind, &list, &options)?;
        Ok(crate::kube::objects::List { items, version: store.version()?, ..Default::default() })
    });
    Ok(answer::json(200, &answer::list(kind, gone.await?, call.view), call.view))
}
