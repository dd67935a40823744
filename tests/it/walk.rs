//! A walk of the union reaches directories in the order in which a reader descends.

use laminafs::types::{Kind, NodeId, Owner};
use laminafs::union::{DirRef, Options, Union};
use laminafs_testing::memory::MemoryTree;

use laminafs_testing::driver::{self, Mount};

type Path = Vec<u8>;

fn layer(tops: std::ops::Range<u8>, inner: std::ops::Range<u8>) -> DirRef {
    let root = MemoryTree::new(1).root();
    for top in tops {
        let name = [b'd', b'0' + top];
        root.mkdir(&name, 0o755, Owner::default()).unwrap();
        let dir = root.dir(&name);
        for number in inner.clone() {
            let name = [b's', b'0' + number];
            dir.mkdir(&name, 0o755, Owner::default()).unwrap();
            dir.dir(&name).mkdir(b"end", 0o755, Owner::default()).unwrap();
        }
        dir.symlink(b"link", b"s1", Owner::default()).unwrap();
    }
    root
}

/// Every directory with its node, in the order of a reader that descends.
fn descend(mount: &mut Mount, dir: NodeId, path: &Path, found: &mut Vec<(Path, NodeId)>) {
    found.push((path.clone(), dir));
    for (name, entry) in mount.list(dir, false, usize::MAX).unwrap() {
        if entry.kind == Kind::Dir && !name.starts_with(b".") {
            let node = mount.lookup(dir, &name).unwrap().node;
            let below = if path.is_empty() { name } else { [path, &b"/"[..], &name].concat() };
            descend(mount, node, &below, found);
        }
    }
}

fn walked(union: &Union, from: NodeId) -> Vec<(Path, u64)> {
    let mut walk = union.walk_from(from).unwrap();
    std::iter::from_fn(|| union.walk_on(&mut walk)).map(|step| (step.path, step.ino)).collect()
}

#[test]
fn a_walk_goes_on_where_a_reader_would() {
    let lowers = [layer(0..6, 0..3), layer(3..9, 1..5)];
    let mut mount = Mount::new(driver::mount(&lowers, None, &Options::default()).unwrap());
    let mut order = Vec::new();
    descend(&mut mount, NodeId::ROOT, &Path::new(), &mut order);
    assert_eq!(order.len(), 1 + 9 + (3 * 3 + 3 * 5 + 3 * 4) * 2);
    for (passed, (path, node)) in order.iter().enumerate() {
        let rest = order[passed + 1..].iter();
        let rest: Vec<_> =
            rest.map(|(path, node)| (path.clone(), mount.union.ino(*node).unwrap())).collect();
        assert_eq!(walked(&mount.union, *node), rest, "from {path:?}");
    }
}

#[test]
fn a_file_is_no_start_of_a_walk() {
    let mut mount =
        Mount::new(driver::mount(&[layer(0..1, 0..2)], None, &Options::default()).unwrap());
    let link = mount.walk(&[b"d0".to_vec(), b"link".to_vec()]).unwrap();
    assert!(mount.union.walk_from(link).is_err());
    assert!(mount.union.walk_from(NodeId(77 << 32)).is_err());
}
