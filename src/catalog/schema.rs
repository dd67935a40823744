//! The schema of the catalogue, version by version.

/// What makes each version of the one before it.
pub(super) const STEPS: [&str; 2] = [VOLUMES, OBJECTS];

/// Version 1. A row is a volume, or a snapshot of the volume `origin`. Names are unique among the
/// rows of one origin that a user can see: those that are being created (state 0) or ready (1), not
/// those in the trash (2) or being removed (3).
const VOLUMES: &str = "
CREATE TABLE volume (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    origin TEXT NOT NULL DEFAULT '',
    dir TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,
    state INTEGER NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    size INTEGER,
    inodes INTEGER,
    options TEXT NOT NULL,
    labels TEXT NOT NULL,
    stale INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE UNIQUE INDEX volume_name ON volume (origin, name) WHERE state < 2;
CREATE TABLE holder (
    volume TEXT NOT NULL REFERENCES volume (id) ON DELETE CASCADE,
    holder TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (volume, holder)
) STRICT;
";

/// Version 2 adds the objects. `object_state` has one row: the last version, the last
/// forgotten one, all bytes that were ever logged, and the number of objects. `total` of a change
/// is that sum of bytes before it.
const OBJECTS: &str = "
CREATE TABLE object (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    version INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) STRICT;
CREATE INDEX object_namespace ON object (namespace);
CREATE TABLE object_owner (
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (owner, kind, namespace, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX object_owned ON object_owner (kind, namespace, name);
CREATE TABLE object_change (
    version INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    total INTEGER NOT NULL,
    old TEXT,
    new TEXT
) STRICT;
CREATE TABLE object_state (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    version INTEGER NOT NULL,
    forgotten INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT;
INSERT INTO object_state VALUES (0, 1, 1, 0, 0);
";
