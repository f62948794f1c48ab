//! What tests stand on.

pub mod app;
pub mod bed;
pub mod browser;
pub mod counters;
pub mod fuse;
pub mod guest;
pub mod http;
pub mod images;
pub mod libvirt;
pub mod postgres;
pub mod proxy;
pub mod screen;
pub mod server;
pub mod small;
pub mod tool;
pub mod viewer;
pub mod wait;
pub mod whole;
pub mod world;
pub mod xen;
