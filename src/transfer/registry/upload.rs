//! Uploads of blobs and manifests to a registry.

use std::io::Read;
use std::time::Duration;

use ureq::SendBody;
use ureq::http::{Uri, header};

use super::pace::Paced;
use super::{Registry, authorized, is_same_place};
use crate::transfer::error::Result;
use crate::types::Digest;

/// The time that a registry may take to store a blob.
const STORED: Duration = Duration::from_secs(15 * 60);

/// Opens the content to send, from its start each time: a request may be sent twice.
pub type Content<'a> = dyn Fn() -> Result<Box<dyn Read>> + 'a;

impl Registry {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// [`Registry`](crate::transfer::error::TransferError::Registry).
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        let known = self.place(&format!("blobs/{digest}"));
        let answer = self.ask(&|value| authorized(self.agent.head(&known), value).call())?;
        Ok(answer.status() == 200)
    }

    /// Sends a blob, unless the repository has it. Returns whether it was sent.
    ///
    /// # Errors
    /// [`Registry`](crate::transfer::error::TransferError::Registry); errors of the content.
    pub fn upload(&self, digest: &Digest, size: u64, content: &Content<'_>) -> Result<bool> {
        if self.has(digest)? {
            return Ok(false);
        }
        let begin = self.place("blobs/uploads/");
        let answer = self.ask(&|value| authorized(self.agent.post(&begin), value).send_empty())?;
        if answer.status() != 202 {
            return Err(self.refused(answer));
        }
        let place = answer.headers().get(header::LOCATION).and_then(|at| at.to_str().ok());
        let place =
            place.ok_or_else(|| self.error("the registry sent no Location for the upload"))?;
        let (place, is_own) = self.place_of_upload(place)?;
        let place =
            format!("{place}{}digest={digest}", if place.contains('?') { '&' } else { '?' });
        let answer = self.send(&place, is_own, ("application/octet-stream", size), content)?;
        if answer.status() != 201 {
            return Err(self.refused(answer));
        }
        Ok(true)
    }

    /// Sets the tag of the reference to an image.
    ///
    /// # Errors
    /// [`Registry`](crate::transfer::error::TransferError::Registry).
    pub fn put_manifest(&self, raw: &[u8], media_type: &str) -> Result<()> {
        let place = self.place(&format!("manifests/{}", self.reference.version));
        let content = || Ok(Box::new(std::io::Cursor::new(raw.to_vec())) as Box<dyn Read>);
        let answer = self.send(&place, true, (media_type, raw.len() as u64), &content)?;
        if answer.status() != 201 {
            return Err(self.refused(answer));
        }
        Ok(())
    }

    fn send(
        &self,
        place: &str,
        is_own: bool,
        (media_type, size): (&str, u64),
        content: &Content<'_>,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        // The body is needed again if the registry requests credentials.
        let failed = std::cell::Cell::new(None);
        let answer = self.ask(&|value| {
            let body = match content() {
                Ok(body) => body,
                Err(error) => {
                    failed.set(Some(error));
                    return Err(ureq::Error::HostNotFound);
                }
            };
            let request = self.agent.put(place).header(header::CONTENT_TYPE, media_type);
            let request = request.header(header::CONTENT_LENGTH, size);
            let request = request.config().timeout_recv_response(Some(STORED)).build();
            let request = authorized(request, value.filter(|_| is_own));
            request.send(SendBody::from_owned_reader(body.take(size)))
        });
        failed.take().map_or(answer, Err)
    }

    /// The URL for an upload, and whether it is on the registry itself: only then credentials are
    /// sent.
    fn place_of_upload(&self, place: &str) -> Result<(String, bool)> {
        let own = self.url("").parse::<Uri>().ok();
        let own = own.ok_or_else(|| self.error("the registry has no host name"))?;
        let bad = || self.error("the registry sent an invalid Location for the upload");
        if place.starts_with('/') && !place.starts_with("//") {
            let authority = own.authority().ok_or_else(bad)?;
            return Ok((format!("{}://{authority}{place}", self.scheme), true));
        }
        let found: Uri = place.parse().map_err(|_| bad())?;
        if found.authority().is_none() {
            return Err(bad());
        }
        Ok((place.to_owned(), is_same_place(&own, &found)))
    }

    /// Reads a part of a blob.
    ///
    /// # Errors
    /// [`Registry`](crate::transfer::error::TransferError::Registry), also if the registry does not
    /// support ranges.
    pub fn part(&self, digest: &Digest, from: u64, to: &mut [u8]) -> Result<()> {
        let last = from + to.len() as u64 - 1;
        let range = format!("bytes={from}-{last}");
        let answer = self.get(&format!("blobs/{digest}"), ("range", &range))?;
        match answer.status().as_u16() {
            206 => {}
            200 => return Err(self.error("the registry does not support range requests")),
            _ => return Err(self.refused(answer)),
        }
        let said = answer.headers().get(header::CONTENT_RANGE);
        let said = said.and_then(|said| said.to_str().ok()).unwrap_or_default();
        if !said.starts_with(&format!("bytes {from}-{last}/")) {
            return Err(self.error(format!("asked for bytes {from} to {last}, it sent {said:?}")));
        }
        let read = Paced::new(answer.into_body().into_reader(), self.patience).read_exact(to);
        read.map_err(|error| self.error(format!("blob {digest}: {error}")))
    }
}
