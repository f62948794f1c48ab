//! Every URI of the native API, its methods and their handlers: the one source of the routes, of `Allow`, of `OPTIONS`
//! and of `pengx routes`.
//!
//! As in Django the first pattern that matches wins; what is asked most stands first.

use std::pin::Pin;

use uuid::Uuid;
use warp::http::{HeaderValue, Method};

use super::schema::{Answer, Request, answers, requests};
use super::{Call, Failure, Prefix, Reply, Shape};
use super::{
    backups, console, disks, interfaces, perf, pms, power, schema, snapshots, storlinks, tasks, templates, vms, volumes,
};
use crate::model::{FileName, NicId, Right, StorlinkId, VmId};

pub type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send>>;

/// A URI pattern. `:vm`, `:pm`, `:gvm`, `:snap`, `:bak`, `:disk` and `:task` are uuids, `:id` and `:nic` integers; `:name`,
/// always at the end, is the plain name of a file.
#[derive(Debug)]
pub struct Resource {
    pub pattern: &'static str,
    pub endpoints: &'static [Endpoint],
}

#[derive(Debug)]
pub struct Endpoint {
    /// The row in section 2 of the contract; `None` for what pengx adds to the manual.
    pub row: Option<u8>,
    pub method: Verb,
    pub handler: Handler,
    /// The body that it reads, if it reads one.
    pub takes: Option<&'static Request>,
    /// What it answers when all goes well.
    pub gives: &'static Answer,
}

/// In the order that `Allow` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

macro_rules! row {
    (choice) => {
        None
    };
    ($row:literal) => {
        Some($row)
    };
}

macro_rules! takes {
    () => {
        None
    };
    ($takes:ident) => {
        Some(&requests::$takes)
    };
}

/// `Method row handler: BODY => ANSWER`.
macro_rules! resources {
    ($($pattern:literal { $($verb:ident $row:tt $handler:path $(: $takes:ident)? => $gives:ident),+ $(,)? })+) => {
        &[$(Resource {
            pattern: $pattern,
            endpoints: &[$(Endpoint {
                row: row!($row),
                method: Verb::$verb,
                handler: |call| Box::pin($handler(call)),
                takes: takes!($($takes)?),
                gives: &answers::$gives,
            }),+],
        }),+]
    };
}

pub static RESOURCES: &[Resource] = resources! {
    "/vms/:vm/" { Get 23 vms::retrieve => VM, Delete 21 vms::delete => NO_CONTENT }
    "/vms/" { Get 22 vms::index => VMS, Post 20 vms::create: VM_CREATE => ROOT }
    "/tasks/:task/" { Get choice tasks::retrieve => TASK, Delete choice tasks::cancel => ROOT }
    "/vms/:vm/start/" { Post 33 power::start => ROOT }
    "/vms/:vm/shutdown/" { Post 32 power::shutdown => ROOT }
    "/vms/:vm/poweroff/" { Post 28 power::poweroff => ROOT }
    "/vms/:vm/reboot/" { Post 29 power::reboot => ROOT }
    "/vms/:vm/reset/" { Post 30 power::reset => ROOT }
    "/vms/:vm/resume/" { Post 31 power::resume => ROOT }
    "/vms/:vm/suspend/" { Post 35 power::suspend => ROOT }
    "/storlinks/" { Get 8 storlinks::read => STORLINKS, Post 6 storlinks::create: STORLINK_CREATE => ROOT }
    "/storlinks/create/" { Post 6 storlinks::create: STORLINK_CREATE => ROOT }
    "/storlinks/all/" { Get 10 storlinks::read_all => STORLINKS }
    "/storlinks/:id/" { Put 9 storlinks::update: STORLINK_UPDATE => NO_CONTENT, Delete 7 storlinks::delete => NO_CONTENT }
    "/storlinks/:id/isos/" { Get choice storlinks::isos => ISOS }
    "/storlinks/:id/volumes/" { Get choice volumes::index => VOLUMES }
    "/storlinks/:id/volumes/:name/" { Delete choice volumes::delete => NO_CONTENT }
    "/templates/" { Get 15 templates::index => TEMPLATES }
    "/templates/add/" { Post 11 templates::add: TEMPLATE_ADD => ROOT }
    "/templates/add_new/" { Post 17 templates::add_new: TEMPLATE_NEW => ROOT }
    "/templates/create/vms/:vm/" { Post 12 templates::create: TEMPLATE_CREATE => TEMPLATE_MADE }
    "/templates/:gvm/" { Get 18 templates::retrieve => TEMPLATE, Put 16 templates::update: TEMPLATE_UPDATE => NO_CONTENT, Delete 13 templates::delete => NO_CONTENT }
    "/templates/:gvm/disks/" { Get 14 templates::disks => DISKS }
    "/templates/:gvm/start/" { Post choice templates::start: TEMPLATE_START => ROOT }
    "/templates/:gvm/shutdown/" { Post choice templates::shutdown => ROOT }
    "/templates/:gvm/poweroff/" { Post choice templates::poweroff => ROOT }
    // The manual's misprint of the singular.
    "/template/:gvm/" { Get 18 templates::retrieve => TEMPLATE, Put 16 templates::update: TEMPLATE_UPDATE => NO_CONTENT, Delete 13 templates::delete => NO_CONTENT }
    "/pms/" { Get 2 pms::read => PM }
    "/pms/all/" { Get 1 pms::index => PMS }
    "/pms/update-authorized-keys/" { Post 4 pms::update_authorized_keys => ROOT, Put 4 pms::update_authorized_keys => ROOT }
    "/pms/:pm/" { Get 3 pms::retrieve => PM }
    // As the manual prints it.
    "/pms:pm/" { Get 3 pms::retrieve => PM }
    "/pmpperf/" { Get 5 perf::read => PMPERF }
    "/vms/:vm/update/" { Post 25 vms::update: VM_UPDATE => NO_CONTENT, Put 25 vms::update: VM_UPDATE => NO_CONTENT }
    "/vms/:vm/resize/" { Post 25 vms::update: VM_UPDATE => NO_CONTENT, Put 25 vms::update: VM_UPDATE => NO_CONTENT }
    "/vms/:vm/edit/" { Put 26 vms::edit: VM_EDIT => NO_CONTENT }
    "/vms/:vm/copy/" { Post 19 vms::copy: VM_COPY => ROOT }
    "/vms/:vm/smigrate/" { Post 24 vms::smigrate: VM_SMIGRATE => ROOT }
    "/vms/:vm/console/" { Get choice console::join => SWITCHED, Post choice console::create => CONSOLE }
    "/vms/:vm/migrate/" { Post 27 not_yet => ROOT }
    "/vms/:vm/start/snapshots/:snap/" { Post 34 snapshots::start => ROOT }
    "/vms/:vm/snapshots/" { Get 38 snapshots::index => SNAPSHOTS, Post 36 snapshots::take: SNAPSHOT_TAKE => SNAPSHOT }
    "/vms/:vm/snapshots/:snap/" { Post 39 snapshots::restore => ROOT, Delete 37 snapshots::delete => NO_CONTENT }
    "/vms/:vm/backups/" { Get 42 backups::index => VMBACKUPS, Post 40 backups::create: BACKUP_CREATE => ROOT }
    "/vms/:vm/backups/:bak/" { Post 43 backups::restore => ROOT, Delete 41 backups::delete => NO_CONTENT }
    "/vms/:vm/backups/:bak/verify/" { Post choice backups::verify => ROOT }
    "/vms/:vm/backups/:bak/prove/" { Post choice backups::prove => ROOT }
    "/backups/" { Get 42 backups::index_all => VMBACKUPS }
    "/vms/:vm/disks/" { Get 46 disks::index => DISKS, Post 44 disks::create: DISK_CREATE => DISK }
    "/vms/:vm/disks/:disk/" { Delete 45 disks::delete => NO_CONTENT }
    "/vms/:vm/disks/snapshots/:snap/" { Get 46 disks::of_snapshot => DISKS }
    "/vms/:vm/disks/backups/:bak/" { Get 46 disks::of_backup => DISKS }
    // As the manual prints them.
    "/vms/:vm/disks/snapshots:snap/" { Get 46 disks::of_snapshot => DISKS }
    "/vms/:vm/disks/backups:bak/" { Get 46 disks::of_backup => DISKS }
    "/vms/:vm/interfaces/" { Get 49 interfaces::index => INTERFACES, Post 47 interfaces::create: INTERFACE_CREATE => ROOT }
    "/vms/:vm/interface/:nic/" { Delete 48 interfaces::delete => NO_CONTENT }
    "/vms/:vm/interfaces/:nic/" { Delete 48 interfaces::delete => NO_CONTENT }
    "/vms/:vm/interface/:nic/update/" { Put 50 interfaces::update: INTERFACE_UPDATE => NO_CONTENT }
    "/vms/:vm/interfaces/:nic/update/" { Put 50 interfaces::update: INTERFACE_UPDATE => NO_CONTENT }
    "/schema/" { Get choice schema::read => GRAMMAR }
    "/tasks/" { Get choice tasks::index => TASKS }
};

/// For the rows that a later release brings: 501.
pub(super) async fn not_yet(call: Call) -> Result<Reply, Failure> {
    Err(Failure::NotYet { method: call.method().clone(), uri: call.pattern() })
}

/// `METHOD  /uri/  row`, one line for each endpoint, in the order of the contract; `-` for what it does not number.
pub fn listing() -> Vec<String> {
    let mut lines: Vec<_> = RESOURCES
        .iter()
        .flat_map(|r| r.endpoints.iter().map(|e| (e.row.unwrap_or(u8::MAX), r.pattern, e.method, e.row)))
        .collect();
    lines.sort_by_key(|&(order, ..)| order);
    let line = |(_, pattern, method, row): (u8, &str, Verb, Option<u8>)| {
        let row = row.map_or_else(|| "-".to_owned(), |row| row.to_string());
        format!("{:<6}  {pattern}  {row}", method.word())
    };
    lines.into_iter().map(line).collect()
}

impl Resource {
    /// Of GET for HEAD.
    pub(super) fn handler(&self, method: &Method) -> Option<Handler> {
        let word = if method == Method::HEAD { "GET" } else { method.as_str() };
        self.endpoints.iter().find(|e| e.method.word() == word).map(|e| e.handler)
    }

    /// Whether it serves a WebSocket, to which a ticket in the query lets in as credentials do.
    pub(super) fn is_console(&self) -> bool {
        self.pattern == "/vms/:vm/console/"
    }

    /// What a caller needs to use the method here, so that one without it is refused before anything is looked at. The core
    /// asks again, for the operation.
    pub fn right(&self, method: &Method) -> Right {
        if method.is_safe() {
            Right::Look
        } else if self.pattern.starts_with("/storlinks/") || self.pattern.starts_with("/pms") {
            Right::Administer
        } else {
            Right::Operate
        }
    }

    /// In Django's fixed order: GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS.
    pub(super) fn allow(&self) -> HeaderValue {
        let mut verbs: Vec<Verb> = self.endpoints.iter().map(|e| e.method).collect();
        verbs.sort();
        let mut words: Vec<&str> = verbs.iter().map(|v| v.word()).collect();
        if verbs.contains(&Verb::Get) {
            words.push("HEAD");
        }
        words.push("OPTIONS");
        // The words are ASCII, so the default is never taken.
        HeaderValue::from_str(&words.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdKind {
    Vm,
    Pm,
    Template,
    Snapshot,
    Backup,
    Disk,
    Task,
    Storlink,
    Nic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Id {
    Uuid(Uuid),
    Number(i32),
}

impl IdKind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "vm" => Self::Vm,
            "pm" => Self::Pm,
            "gvm" => Self::Template,
            "snap" => Self::Snapshot,
            "bak" => Self::Backup,
            "disk" => Self::Disk,
            "task" => Self::Task,
            "id" => Self::Storlink,
            "nic" => Self::Nic,
            _ => return None,
        })
    }

    fn read(self, text: &str) -> Option<Id> {
        match self {
            Self::Storlink => text.parse().ok().map(|StorlinkId(n)| Id::Number(n)),
            Self::Nic => text.parse().ok().map(|NicId(n)| Id::Number(n)),
            // Every uuid is written alike, whatever it names.
            _ => text.parse().ok().map(|VmId(uuid)| Id::Uuid(uuid)),
        }
    }
}

/// The ids in a path, in its order; no pattern has more than two.
pub(super) type Params = [Option<(IdKind, Id)>; 2];

/// A pattern, taken apart once at the start.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Segment>);

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Word(&'static str),
    /// `before` is empty but for the manual's misprints: `/pms:pm/`.
    Id {
        before: &'static str,
        kind: IdKind,
    },
    /// The plain name of a file; the last segment.
    Name,
}

/// How a path met its pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) params: Params,
    pub(super) shape: Shape,
    /// Ends in a slash or in `.xml`: no redirect is due.
    pub(super) canonical: bool,
}

impl Hit {
    pub(super) fn vm(&self) -> Option<VmId> {
        self.params.iter().flatten().find_map(|param| match param {
            (IdKind::Vm, Id::Uuid(id)) => Some(VmId(*id)),
            _ => None,
        })
    }
}

impl Pattern {
    pub(super) fn new(text: &'static str) -> Self {
        let segment = |part: &'static str| match part.split_once(':') {
            Some(("", "name")) => Segment::Name,
            Some((before, name)) => {
                IdKind::named(name).map_or(Segment::Word(part), |kind| Segment::Id { before, kind })
            }
            None => Segment::Word(part),
        };
        Self(text.trim_matches('/').split('/').map(segment).collect())
    }

    /// `path` is percent-decoded. Does not allocate.
    pub(super) fn find(&self, prefixes: &[Prefix], path: &str) -> Option<Hit> {
        // Django lets leading slashes collapse.
        let path = path.trim_start_matches('/');
        prefixes.iter().find_map(|prefix| {
            let (params, canonical) = self.matches(path.strip_prefix(prefix.path.as_str())?)?;
            Some(Hit { params, shape: prefix.shape, canonical })
        })
    }

    /// The file that a path names which matched.
    pub(super) fn name(&self, path: &str) -> Option<FileName> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let last = path.rsplit('/').next().filter(|_| self.0.last() == Some(&Segment::Name));
        last.and_then(|name| name.parse().ok())
    }

    fn matches(&self, path: &str) -> Option<(Params, bool)> {
        let (path, slash) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        // Of a file's name it would be a part.
        let named = self.0.last() == Some(&Segment::Name);
        let (path, suffix) = match path.strip_suffix(".xml") {
            Some(path) if !named => (path, true),
            _ => (path, false),
        };
        let mut params = Params::default();
        let mut free = params.iter_mut();
        let mut parts = path.split('/');
        for segment in &self.0 {
            let part = parts.next()?;
            match segment {
                Segment::Word(word) if *word == part => {}
                Segment::Word(_) => return None,
                Segment::Name => drop(part.parse::<FileName>().ok()?),
                Segment::Id { before, kind } => {
                    let text = part.strip_prefix(before)?;
                    // A client may have read the colon of a misprint as part of the URI.
                    let text = if before.is_empty() { text } else { text.strip_prefix(':').unwrap_or(text) };
                    *free.next()? = Some((*kind, kind.read(text)?));
                }
            }
        }
        parts.next().is_none().then_some((params, slash || suffix))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dialects::pengx::Settings;

    const ID: &str = "bed05d84-7c44-4720-9588-57cbd8ecef8c";

    fn find(path: &str) -> Option<(&'static str, Hit)> {
        let prefixes = Settings::default().prefixes;
        RESOURCES.iter().find_map(|r| Some((r.pattern, Pattern::new(r.pattern).find(&prefixes, path)?)))
    }

    #[test]
    fn all_fifty_rows_are_there() {
        let rows: BTreeSet<u8> = RESOURCES.iter().flat_map(|r| r.endpoints).filter_map(|e| e.row).collect();
        assert_eq!(rows, (1..=50).collect());
    }

    #[test]
    fn every_pattern_is_unique_and_its_names_are_known() {
        let mut seen = BTreeSet::new();
        for r in RESOURCES {
            assert!(seen.insert(r.pattern), "{} stands twice", r.pattern);
            assert!(r.pattern.starts_with('/') && r.pattern.ends_with('/'), "{}", r.pattern);
            let pattern = Pattern::new(r.pattern).0;
            let ids = pattern.iter().filter(|s| matches!(s, Segment::Id { .. })).count();
            let names = pattern.iter().filter(|s| **s == Segment::Name).count();
            assert_eq!(ids + names, r.pattern.matches(':').count(), "{}", r.pattern);
            assert!(names == 0 || (names == 1 && pattern.last() == Some(&Segment::Name)), "{}", r.pattern);
            assert!(ids <= Params::default().len());
            let verbs: BTreeSet<_> = r.endpoints.iter().map(|e| e.method).collect();
            assert_eq!(verbs.len(), r.endpoints.len(), "{}", r.pattern);
        }
    }

    #[test]
    fn every_pattern_matches_itself_first() {
        for r in RESOURCES {
            let mut path = r.pattern.replace(":id", "7").replace(":nic", "8").replace(":name", "a.qcow2");
            for uuid in [":vm", ":pm", ":gvm", ":snap", ":bak", ":disk", ":task"] {
                path = path.replace(uuid, ID);
            }
            let (pattern, hit) = find(&path).unwrap_or_else(|| panic!("{path} is unknown"));
            assert_eq!((pattern, hit.canonical), (r.pattern, true));
        }
    }

    #[test]
    fn paths_match_as_in_django() {
        let plain = ID.replace('-', "").to_uppercase();
        for (path, pattern, canonical) in [
            ("/vms/", "/vms/", true),
            ("/vms", "/vms/", false),
            ("//vms/", "/vms/", true),
            ("/vms.xml", "/vms/", true),
            ("/vms.xml/", "/vms/", true),
            ("/api/v1/vms/", "/vms/", true),
            ("/storlinks/create/", "/storlinks/create/", true),
            ("/storlinks/007/", "/storlinks/:id/", true),
            (&format!("/vms/{plain}/"), "/vms/:vm/", true),
            (&format!("/apiv2/vms/{ID}.xml"), "/vms/:vm/", true),
            (&format!("/pms{ID}/"), "/pms:pm/", true),
            (&format!("/pms:{ID}/"), "/pms:pm/", true),
            (&format!("/vms/{ID}/disks/snapshots{ID}"), "/vms/:vm/disks/snapshots:snap/", false),
        ] {
            let (found, hit) = find(path).unwrap_or_else(|| panic!("{path} is unknown"));
            assert_eq!((found, hit.canonical), (pattern, canonical), "{path}");
        }
        for path in [
            "",
            "/",
            "/nope/",
            "/VMS/",
            "/vms//",
            "/vms/x/",
            "/vms/../vms/",
            "/vms.json",
            "/api",
            "/api/",
            "/vms/7/",
            "/api/v3/vms/",
            "/storlinks/x/",
            "/storlinks/99999999999/",
            "/storlinks/-1/",
            "/storlinks/٣/",
            &format!("/vms/{{{ID}}}/"),
            &format!("/vms/{ID}/nope/"),
            &format!("/vms/urn:uuid:{ID}/"),
            "/.xml",
        ] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn prefixes_decide_the_shape() {
        for (path, shape) in
            [("/vms/", Shape::V2), ("/v1/vms/", Shape::V1), ("/api/v1/vms/", Shape::V1), ("/api/vms/", Shape::V2)]
        {
            assert_eq!(find(path).unwrap().1.shape, shape, "{path}");
        }
    }

    #[test]
    fn ids_are_read_in_their_order() {
        let (_, hit) = find(&format!("/vms/{ID}/interface/12/")).unwrap();
        let vm = Id::Uuid(ID.parse().unwrap());
        assert_eq!(hit.params, [Some((IdKind::Vm, vm)), Some((IdKind::Nic, Id::Number(12)))]);
    }

    #[test]
    fn allow_has_djangos_order() {
        let allow = |pattern| RESOURCES.iter().find(|r| r.pattern == pattern).unwrap().allow();
        assert_eq!(allow("/vms/"), "GET, POST, HEAD, OPTIONS");
        assert_eq!(allow("/templates/:gvm/"), "GET, PUT, DELETE, HEAD, OPTIONS");
        assert_eq!(allow("/vms/:vm/start/"), "POST, OPTIONS");
    }

    #[test]
    fn the_listing_has_a_line_for_each_endpoint() {
        let lines = listing();
        assert_eq!(lines.len(), RESOURCES.iter().map(|r| r.endpoints.len()).sum::<usize>());
        assert_eq!(lines.first().unwrap(), "GET     /pms/all/  1");
        assert_eq!(lines.last().unwrap(), "GET     /tasks/  -");
        assert!(lines.contains(&"DELETE  /vms/:vm/  21".to_owned()));
    }
}
