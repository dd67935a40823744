//! One file for each command.

pub mod container;
pub mod doctor;
pub mod helper;
pub mod image;
pub mod mount;
pub mod program;
pub mod status;
pub mod umount;
pub mod volume;
