//! The objects of Kubernetes' storage interface, without HTTP: the daemon serves them, and commands
//! use the same code without a daemon.
//!
//! | file | its part |
//! | --- | --- |
//! | `kinds` | the table of kinds: names, scope, columns |
//! | `objects` | create, update, delete, list, in one transaction each |
//! | `meta` | what all objects have: names, ids, finalizers, owners |
//! | `namespace` | namespaces that exist, end, and take their content along |
//! | `select` | label and field selectors |
//! | `admission`, `patch`, `schema` | defaults and rules of fields, patches, OpenAPI |
//! | `controller` | carries out what the decisions of `laminafs::claim` ask for |
//! | `backing` | the volume of Lamina behind a PersistentVolume |
//! | `convert` | objects as the decisions see them, and their writes |
//! | `manifest`, `configured` | files of objects, and `apply` as kubectl's client does it |
//! | `foreign`, `export` | manifests of another cluster, and for one |
//! | `describe`, `tabs` | objects in words, in columns |
//! | `feed` | changes, for watches and the controller |
//! | `pods` | pods that run on this host |
//! | `table`, `cells`, `age` | what `kubectl get` prints |
//! | `status` | errors, as `metav1.Status` has them |
//! | `seam` | where patches, schemas and admission are called |
//!
//! An object is JSON in the catalogue, as clients wrote it, with defaults. Its resource version is
//! that of the catalogue and is not part of the stored text.

mod admission;
pub mod age;
pub mod backing;
mod cells;
pub mod configured;
pub mod controller;
mod convert;
pub mod describe;
pub mod export;
pub mod feed;
pub mod foreign;
pub mod kinds;
pub mod manifest;
pub mod meta;
pub mod namespace;
pub mod objects;
mod patch;
pub mod pods;
mod schema;
pub mod seam;
pub mod select;
pub mod status;
pub mod table;
pub mod tabs;
