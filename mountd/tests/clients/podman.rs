//! podman with a store of its own, which mounts with the program under test.

use crate::engine::Engine;
use crate::harness::{self, Site};
use crate::host::{self, User};

/// The settings of a store of containers/storage.
pub struct Store<'a> {
    /// The program that mounts.
    pub mount_program: &'a str,
    /// The OCI runtime.
    pub runtime: &'a str,
    /// `enabled` or `disabled`.
    pub cgroups: &'a str,
    /// A further line of the options of the driver.
    pub line: &'a str,
    /// The socket of the volume plugin `lamina`.
    pub plugin: &'a str,
}

impl Default for Store<'_> {
    fn default() -> Self {
        Self { mount_program: "", runtime: "runc", cgroups: "enabled", line: "", plugin: "" }
    }
}

/// podman of root with the program under test.
pub fn of_root(site: &Site) -> Engine {
    with_store(site, &Store::default(), None)
}

/// podman with a store in `store`; the default mount program is the program under test.
pub fn with_store(site: &Site, store: &Store<'_>, user: Option<User>) -> Engine {
    let own = harness::program();
    let program = match store.mount_program {
        "" => own.to_str().expect("a path of text"),
        named => named,
    };
    for name in ["graph", "run", "tmp", "volumes"] {
        site.directory(&format!("store/{name}"));
    }
    let place = site.at("store");
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{place}/graph\"\n\
         runroot = \"{place}/run\"\n[storage.options.overlay]\nmount_program = \"{program}\"\n{}\n",
        store.line
    );
    let storage = site.write("store/storage.conf", storage);
    let places = format!("tmp_dir = \"{place}/tmp\"\nvolume_path = \"{place}/volumes\"\n");
    let plugin = match store.plugin {
        "" => String::new(),
        socket => format!("[engine.volume_plugins]\nlamina = \"{socket}\"\n"),
    };
    let containers = configuration(store.runtime, store.cgroups) + &places + &plugin;
    let containers = site.write("store/containers.conf", containers);
    if let Some(user) = &user {
        host::give(user, &place);
    }
    let variables = vec![("CONTAINERS_STORAGE_CONF", storage), ("CONTAINERS_CONF", containers)];
    Engine { program: "podman", variables, user, run_options: Vec::new() }
}

/// Neither network nor cgroup manager, and no limits that a confined root may not set.
pub fn configuration(runtime: &str, cgroups: &str) -> String {
    format!(
        "[containers]\nnetns = \"none\"\ncgroups = \"{cgroups}\"\nlog_driver = \"k8s-file\"\n\
         default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
         [engine]\nruntime = \"{runtime}\"\ncgroup_manager = \"cgroupfs\"\n\
         events_logger = \"file\"\n"
    )
}
