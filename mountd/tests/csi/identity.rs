//! The service Identity, the socket, and the services of each role.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tonic::Code;

use crate::client::refused;
use crate::host::{Host, NAME, NODE, NODE_KEY};
use crate::wire::plugin_capability::service::Type;
use crate::wire::*;

fn services(host: &Host) -> Vec<Type> {
    let answer = host.client().get_plugin_capabilities(GetPluginCapabilitiesRequest {}).unwrap();
    let mut found: Vec<Type> = answer
        .capabilities
        .into_iter()
        .filter_map(|one| match one.r#type {
            Some(plugin_capability::Type::Service(service)) => Some(service.r#type()),
            _ => None,
        })
        .collect();
    found.sort();
    found
}

#[test]
fn a_plugin_has_the_name_and_the_version_that_it_says() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let info = client.get_plugin_info(GetPluginInfoRequest {}).unwrap();
    assert_eq!(info.name, NAME);
    assert_eq!(info.vendor_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(client.probe(ProbeRequest {}).unwrap().ready, Some(true));
    let answer = client.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).unwrap();
    let online = plugin_capability::volume_expansion::Type::Online;
    let has_online = answer.capabilities.iter().any(|one| {
        matches!(&one.r#type, Some(plugin_capability::Type::VolumeExpansion(expansion))
            if expansion.r#type() == online)
    });
    assert!(has_online, "{answer:?}");
}

#[test]
fn a_role_has_its_services_and_no_others() {
    use Type::{
        ControllerService, GroupControllerService, SnapshotMetadataService,
        VolumeAccessibilityConstraints,
    };
    let every = vec![
        ControllerService,
        VolumeAccessibilityConstraints,
        GroupControllerService,
        SnapshotMetadataService,
    ];
    for (role, wanted) in [
        ("all", every.clone()),
        ("controller", every),
        ("node", vec![VolumeAccessibilityConstraints]),
    ] {
        let Some(host) = Host::with_role(role) else { return };
        assert_eq!(services(&host), wanted, "{role}");
        let client = host.client();
        let controller = client.controller_get_capabilities(ControllerGetCapabilitiesRequest {});
        let node = client.node_get_info(NodeGetInfoRequest {});
        let group =
            client.group_controller_get_capabilities(GroupControllerGetCapabilitiesRequest {});
        let delta = client.get_metadata_delta(GetMetadataDeltaRequest::default());
        assert_eq!(node.is_ok(), role != "controller", "{role}: {node:?}");
        if let Ok(node) = node {
            let topology = node.accessible_topology.unwrap();
            assert_eq!((node.node_id.as_str(), topology.segments.len()), (NODE, 1));
            assert_eq!(topology.segments[NODE_KEY], NODE);
        }
        if role == "node" {
            refused(Code::Unimplemented, controller);
            refused(Code::Unimplemented, group);
            refused(Code::Unimplemented, delta);
        } else {
            assert!(!controller.unwrap().capabilities.is_empty());
            assert!(!group.unwrap().capabilities.is_empty());
            refused(Code::InvalidArgument, delta);
        }
    }
}

#[test]
fn a_socket_without_a_driver_is_replaced_and_one_with_a_driver_is_not() {
    let Some(host) = Host::new() else { return };
    let text = host.refused_driver();
    assert!(text.contains("csi.sock") && text.contains("listens"), "{text}");
    assert_eq!(host.client().probe(ProbeRequest {}).unwrap().ready, Some(true));
    host.kill();
    assert!(host.socket().exists(), "a driver that is killed leaves its socket");
    host.start();
    let mode = fs::metadata(host.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    host.end();
    assert!(!host.socket().exists(), "the socket stays");
    // Nothing may be made beside the socket.
    fs::write(host.socket(), "mine").unwrap();
    let text = host.refused_driver();
    assert!(text.contains("csi.sock"), "{text}");
    assert_eq!(fs::read_to_string(host.socket()).unwrap(), "mine");
}

/// A request for Probe over HTTP/2, with an authority of the client's choice.
fn probe_of(host: &Host, authority: &[u8]) -> Vec<u8> {
    let text = |bytes: &[u8]| {
        let mut field = vec![u8::try_from(bytes.len()).unwrap()];
        field.extend(bytes);
        field
    };
    let mut head = vec![0x83, 0x86, 0x04]; // POST, http, and a path
    head.extend(text(b"/csi.v1.Identity/Probe"));
    head.push(0x01); // an authority
    head.extend(text(authority));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        head.push(0);
        head.extend(text(name.as_bytes()));
        head.extend(text(value.as_bytes()));
    }
    let frame = |kind: u8, flags: u8, stream: u8, body: &[u8]| {
        let mut bytes = vec![0, 0, u8::try_from(body.len()).unwrap(), kind, flags, 0, 0, 0, stream];
        bytes.extend(body);
        bytes
    };
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(4, 0, 0, &[]));
    sent.extend(frame(1, 4, 1, &head));
    sent.extend(frame(0, 1, 1, &[0; 5]));
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&sent).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0; 9];
    loop {
        stream.read_exact(&mut byte).unwrap();
        let len = usize::from(byte[0]) << 16 | usize::from(byte[1]) << 8 | usize::from(byte[2]);
        let mut body = vec![0; len];
        stream.read_exact(&mut body).unwrap();
        answer.push(byte[3]);
        // Trailers, a reset, or the end of the connection.
        if matches!((byte[3], byte[4] & 1), (1, 1) | (3 | 7, _)) {
            return answer;
        }
    }
}

#[test]
fn an_authority_of_an_old_sidecar_is_accepted() {
    let Some(host) = Host::new() else { return };
    for authority in ["localhost", "/csi/csi.sock", host.socket().to_str().unwrap()] {
        let frames = probe_of(&host, authority.as_bytes());
        assert!(frames.contains(&0), "no message for {authority}: frames {frames:?}");
        assert!(!frames.contains(&3) && !frames.contains(&7), "{authority}: frames {frames:?}");
    }
}
