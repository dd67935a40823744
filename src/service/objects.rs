//! Objects of a cluster's storage interface, as a front end keeps them in the catalogue.

pub use crate::catalog::objects::{
    Change, Key, Limits, NewObject, OBJECTS_MAX, Object, Objects, Page, Query, TEXT_MAX, Writing,
};
