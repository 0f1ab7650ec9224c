//! The programs with a database: an order and its mail are both there or neither, whoever is killed when.

mod adaptors;
mod http;
mod per_request;
mod programs;
mod scene;
mod service;
