//! Carries out the steps of a case.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::language::{Case, Step};
use super::life::{LOOK, Life};
use super::look;
use super::manifest::{self, Place};
use super::state::State;

/// The time in which a state has to come.
const WAIT: Duration = Duration::from_secs(12);

/// A case under way.
pub struct Run<'a> {
    life: Life<'a>,
    /// Whether daemons are killed meanwhile, so that events may be lost.
    is_killed: bool,
    /// The ids of claims by their names: `@NAME` needs them.
    claims: HashMap<String, String>,
}

type Outcome<T = ()> = Result<T, String>;

impl<'a> Run<'a> {
    pub fn new(life: Life<'a>, is_killed: bool) -> Self {
        Self { life, is_killed, claims: HashMap::new() }
    }

    pub fn life(&self) -> &Life<'a> {
        &self.life
    }

    /// All steps, and what they come to: soon the state of a run without kills, if there is one.
    pub fn carry_out(&mut self, case: &Case, calm: Option<&State>) -> Outcome<State> {
        let mut steps = &case.steps[..];
        while let Some((step, rest)) = steps.split_first() {
            let looks = steps.iter().take_while(|step| step.verb == "=").count();
            let (done, behind) = match looks {
                0 => (self.step(step), rest),
                _ => (self.check(&steps[..looks]), &steps[looks..]),
            };
            done.map_err(|error| format!("line {}: {}: {error}", step.number, step.text))?;
            steps = behind;
        }
        self.life.settle();
        let deadline = Instant::now() + WAIT;
        loop {
            let state = State::read(&mut self.life);
            match calm.and_then(|calm| calm.difference(&state)) {
                None => return Ok(state),
                Some(text) if Instant::now() > deadline => return Err(text),
                Some(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// The name that a word stands for.
    fn name(&self, word: &str) -> Outcome<String> {
        let Some(claim) = word.strip_prefix('@') else { return Ok(word.to_owned()) };
        let uid = self.claims.get(claim).ok_or_else(|| format!("no claim {claim}"))?;
        Ok(format!("pvc-{uid}"))
    }

    fn place(&self, step: &Step) -> Outcome<Place> {
        Ok(Place::new(&step.words[0], &self.name(&step.words[1])?))
    }

    fn text(&self, value: &Value) -> String {
        value.to_string().replace("$DIR", self.life.dir().to_str().unwrap())
    }

    fn step(&mut self, step: &Step) -> Outcome {
        match &step.verb[..] {
            "dir" => fs::create_dir_all(self.life.dir().join(&step.words[0])).unwrap(),
            "file" => {
                let path = self.life.dir().join(&step.words[0]);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "x").unwrap();
            }
            "restart" => self.life.kill(),
            "patch" | "status" => {
                let place = self.place(step)?;
                let end = if step.verb == "status" { "/status" } else { "" };
                let body = self.text(step.value.as_ref().unwrap());
                let form = "merge-patch+json";
                self.send(step, "PATCH", &format!("{}{end}", place.path()), form, &body)?;
            }
            "delete" => {
                let path = self.place(step)?.path();
                self.send(step, "DELETE", &path, "json", "")?;
            }
            "event" => return self.event(step),
            _ => return self.create(step),
        }
        Ok(())
    }

    fn create(&mut self, step: &Step) -> Outcome {
        let (place, object) = manifest::object(step);
        let body = self.text(&object);
        let made = self.send(step, "POST", &place.collection(), "json", &body)?;
        let made = match made {
            Some(made) => made,
            None if step.refusal.is_some() => return Ok(()),
            None => self.life.get(&place.path()).json(),
        };
        if let (true, Some(uid)) = (place.kind == "pvc", made["metadata"]["uid"].as_str()) {
            self.claims.insert(step.words[0].clone(), uid.to_owned());
        }
        Ok(())
    }

    /// Sends a request that ends as the step wants it. The object, if it is answered.
    fn send(
        &mut self,
        step: &Step,
        method: &str,
        path: &str,
        form: &str,
        body: &str,
    ) -> Outcome<Option<Value>> {
        let (reply, is_repeated) = self.life.request(method, path, form, body);
        // A daemon that was killed before its answer may have done it.
        let is_done = match method {
            "POST" => reply.code == 409 && reply.json()["reason"] == "AlreadyExists",
            "DELETE" | "PATCH" => reply.code == 404,
            _ => false,
        };
        match &step.refusal {
            Some((code, text)) => {
                let text = text.replace("$DIR", self.life.dir().to_str().unwrap());
                let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
                let is_right = reply.code == *code && message.contains(&text[..]);
                let found = format!("wanted {code} {text}\n found {} {message}", reply.code);
                if is_right { Ok(None) } else { Err(found) }
            }
            None if reply.code < 300 => Ok(Some(reply.json())),
            None if is_repeated && is_done => Ok(None),
            None => Err(format!("{} {}", reply.code, reply.body)),
        }
    }

    /// Waits until all looks hold, and sees whether they still do when nothing is left to be done.
    fn check(&mut self, steps: &[Step]) -> Outcome {
        let deadline = Instant::now() + WAIT;
        while let Some(wrong) = self.wrong(steps)? {
            if Instant::now() > deadline {
                return Err(wrong);
            }
            std::thread::sleep(LOOK);
        }
        if !self.is_killed {
            self.life.settle();
            if let Some(wrong) = self.wrong(steps)? {
                return Err(format!("it did not stay so: {wrong}"));
            }
        }
        Ok(())
    }

    /// The first look that does not hold.
    fn wrong(&mut self, steps: &[Step]) -> Outcome<Option<String>> {
        for step in steps {
            if step.words[0] == "file" {
                let is_there = self.life.dir().join(&step.words[1]).symlink_metadata().is_ok();
                if is_there != (step.words[2] == "there") {
                    return Ok(Some(format!("`{}`: not so", step.text)));
                }
                continue;
            }
            let place = self.place(step)?;
            if let Some(count) = step.words[1].strip_prefix("count=") {
                let list = self.life.get(&place.collection()).json();
                let items = list["items"].as_array().unwrap();
                if items.len().to_string() != count {
                    return Ok(Some(format!("`{}`: {list}", step.text)));
                }
                continue;
            }
            let reply = self.life.get(&place.path());
            let found = if reply.code == 404 { None } else { Some(reply.json()) };
            for word in &step.words[2..] {
                let word = match word.split_once("=@") {
                    Some((key, claim)) => format!("{key}={}", self.name(&format!("@{claim}"))?),
                    None => word.clone(),
                };
                if let Err(error) = look::holds(&place, found.as_ref(), &word) {
                    return Ok(Some(format!("`{}`: {error}\n{}", step.text, json!(found))));
                }
            }
        }
        Ok(None)
    }

    /// Waits for an event. Kubernetes keeps none over a crash either.
    fn event(&mut self, step: &Step) -> Outcome {
        if self.is_killed {
            return Ok(());
        }
        let place = self.place(step)?;
        let (reason, text) = (&step.words[2], step.words[3..].join(" "));
        let path = format!(
            "/api/v1/namespaces/{}/events?fieldSelector=involvedObject.name={},reason={reason}",
            place.event_namespace(),
            place.name,
        );
        let deadline = Instant::now() + WAIT;
        loop {
            let events = self.life.get(&path).json();
            let items = events["items"].as_array().unwrap();
            let mut messages = items.iter().filter_map(|event| event["message"].as_str());
            if messages.any(|message| message.contains(&text)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("no such event: {events}"));
            }
            std::thread::sleep(LOOK);
        }
    }
}
