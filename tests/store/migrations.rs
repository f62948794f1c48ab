//! The same tables on both databases, and in `schema.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use pengx::store::pms;

use super::*;

/// Table, then column: type and whether it may be null.
type Tables = BTreeMap<String, BTreeMap<String, (String, bool)>>;

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    of_table: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    nullable: bool,
}

fn tables(columns: Vec<Column>) -> Tables {
    let mut tables = Tables::new();
    for c in columns.into_iter().filter(|c| c.of_table != "__diesel_schema_migrations") {
        let kind = match c.kind.to_lowercase().as_str() {
            "text" => "Text",
            "integer" => "Integer",
            "bigint" => "BigInt",
            "boolean" => "Bool",
            "timestamp" | "timestamp without time zone" => "Timestamp",
            other => panic!("{}.{} is {other}, which the two databases do not share", c.of_table, c.name),
        };
        tables.entry(c.of_table).or_default().insert(c.name, (kind.to_owned(), c.nullable));
    }
    tables
}

fn of_sqlite(c: &mut SqliteConnection) -> Tables {
    let sql = "SELECT t.name AS of_table, c.name AS name, c.type AS kind, c.\"notnull\" = 0 AS nullable
        FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
    tables(diesel::sql_query(sql).load(c).unwrap())
}

fn of_postgres(c: &mut PgConnection) -> Tables {
    let sql = "SELECT table_name::text AS of_table, column_name::text AS name, data_type::text AS kind,
        is_nullable = 'YES' AS nullable FROM information_schema.columns WHERE table_schema = 'public'";
    tables(diesel::sql_query(sql).load(c).unwrap())
}

fn of_schema_rs() -> Tables {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/schema.rs")).unwrap();
    let mut tables = Tables::new();
    for table in text.split("diesel::table! {").skip(1) {
        let name = table.trim_start().split(' ').next().unwrap().to_owned();
        for (column, kind) in table.lines().filter_map(|l| l.trim().trim_end_matches(',').split_once(" -> ")) {
            if column.starts_with("diesel::") {
                continue;
            }
            let inner = kind.strip_prefix("Nullable<").and_then(|k| k.strip_suffix('>'));
            let entry = (inner.unwrap_or(kind).to_owned(), inner.is_some());
            tables.entry(name.clone()).or_default().insert(column.to_owned(), entry);
        }
    }
    tables
}

fn folder(database: &str) -> String {
    format!("{}/migrations/{database}", env!("CARGO_MANIFEST_DIR"))
}

fn names(database: &str) -> Vec<String> {
    let entries = fs::read_dir(folder(database)).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn both_databases_have_the_same_migrations_and_the_tables_of_schema_rs() {
    assert_eq!(names("sqlite"), names("postgres"));
    let (sqlite, postgres) = (Database::sqlite(), Database::postgres());
    let on_sqlite = of_sqlite(&mut SqliteConnection::establish(&sqlite.url).unwrap());
    let on_postgres = of_postgres(&mut PgConnection::establish(&postgres.url).unwrap());
    assert!(on_sqlite.len() >= 11, "{on_sqlite:?}");
    assert_eq!(on_sqlite, on_postgres);
    assert_eq!(on_sqlite, of_schema_rs());
}

#[test]
fn migrations_go_up_down_and_up_again() {
    let (sqlite, postgres) = (Database::sqlite(), Database::postgres());
    let mut s = SqliteConnection::establish(&sqlite.url).unwrap();
    let mut p = PgConnection::establish(&postgres.url).unwrap();
    let (up_s, up_p) = (of_sqlite(&mut s), of_postgres(&mut p));
    s.revert_all_migrations(FileBasedMigrations::from_path(folder("sqlite")).unwrap()).unwrap();
    p.revert_all_migrations(FileBasedMigrations::from_path(folder("postgres")).unwrap()).unwrap();
    assert_eq!((of_sqlite(&mut s), of_postgres(&mut p)), (Tables::new(), Tables::new()));
    sqlite.store.migrate().unwrap();
    postgres.store.migrate().unwrap();
    assert_eq!((of_sqlite(&mut s), of_postgres(&mut p)), (up_s, up_p));
}

#[test]
fn migrating_again_changes_nothing_and_many_may_do_it_at_once() {
    on_both(|db| {
        db.write(|c| pms::save(c, &pm(1)));
        db.store.migrate().unwrap();
        assert_eq!(db.read(pms::all).len(), 1);
    });
    let dir = tempfile::tempdir().unwrap();
    for url in [format!("sqlite://{}/new.db", dir.path().display()), postgres::database()] {
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| Store::open(&url).unwrap().migrate().unwrap());
            }
        });
    }
}

#[test]
fn a_database_of_a_newer_pengx_is_refused() {
    on_both(|db| {
        db.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')");
        let e = Store::open(&db.url).unwrap().migrate().unwrap_err();
        assert_eq!(e.kind().name(), "refused");
        assert!(e.to_string().contains("9999"), "{e}");
    });
}

#[test]
fn before_migrate_there_is_no_answer_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pengx.db");
    let store = Store::open(&format!("sqlite://{}", path.display())).unwrap();
    let refused = |e: pengx::error::Error| assert_eq!(e.to_string(), "the database does not answer");
    refused(store.read(pms::all).unwrap_err());
    refused(store.write_tx(pms::all).unwrap_err());
    refused(store.note_tx(pms::all).unwrap_err());
    assert!(!path.exists());
    store.migrate().unwrap();
    store.write_tx(|c| pms::save(c, &pm(1))).unwrap();
    for file in ["pengx.db", "pengx.db-wal", "pengx.db-shm"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_said_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let gone = format!("sqlite://{}/gone/pengx.db", dir.path().display());
    let e = Store::open(&gone).err().unwrap();
    assert!(e.to_string().contains("/gone; create it first"), "{e}");

    let db = Database::sqlite();
    let other = Store::open(&db.url).unwrap();
    other.migrate().unwrap();
    fs::remove_file(Path::new(db.url.strip_prefix("sqlite://").unwrap())).unwrap();
    assert_eq!(other.read(pms::all).unwrap_err().kind().name(), "unavailable");
    assert!(!Path::new(db.url.strip_prefix("sqlite://").unwrap()).exists());
}
