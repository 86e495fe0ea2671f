#![doc = include_str!("../README.md")]

mod database;
mod once;
mod store;
mod upkeep;

pub use self::{
    database::{Database, migrate},
    once::Once,
    store::{SqlMark, SqlStore},
    upkeep::Upkeep,
};
