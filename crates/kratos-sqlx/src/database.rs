//! What we ask of a database, and the databases that can do it.
//!
//! All time is the database's: processes whose clocks differ agree on what has expired.

mod queries;

use sqlx::Pool;

pub(crate) use self::queries::Queries;

/// A database that [`Once`](crate::Once) and [`SqlStore`](crate::SqlStore) work on: `Sqlite` and
/// `Postgres`, each with the feature of its name. It cannot be implemented elsewhere.
pub trait Database: Queries {}

impl<DB: Queries> Database for DB {}

/// Makes the tables `kratos_once` and `kratos_marks`, unless they are there. Several processes may
/// do so at the same time.
///
/// [`Upkeep`](crate::Upkeep) does it at the start of an App. Where the program may not make tables,
/// a person runs the statements that the README has.
///
/// # Errors
///
/// What the database says.
pub async fn migrate<DB: Database>(pool: &Pool<DB>) -> sqlx::Result<()> {
    DB::migrate(pool).await
}
