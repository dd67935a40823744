//! One file for each command, with its arguments.

mod bar;
pub mod container;
pub mod doctor;
pub mod generate;
pub mod helper;
pub mod image;
pub mod kube;
pub mod kubeconfig;
pub mod layer;
pub mod migrate;
pub mod mount;
pub mod pod;
pub mod program;
mod resolved;
pub mod serve;
pub mod status;
pub mod system;
pub mod table;
pub mod umount;
pub mod volume;
