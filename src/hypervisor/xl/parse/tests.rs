use super::super::tests::transcript;
use super::*;

fn id(text: &str) -> VmId {
    text.parse().unwrap()
}

const ONE: &str = "0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a01";

#[test]
fn the_domains_of_a_list_have_states() {
    let mut rows = list(&transcript("list-v").stdout).unwrap();
    let dom0 = rows.remove(0);
    assert_eq!((dom0.is_guest(), dom0.cpu_time), (false, Duration::from_millis(120_100)));
    assert!(rows.iter().all(Row::is_guest));
    let states: Vec<_> = rows.iter().map(|row| (row.domid, row.state, row.memory.0)).collect();
    use RunState::{Crashed, Running};
    assert_eq!(states, [(1, Running, 128), (2, Running, 4), (3, Running, 64), (4, Crashed, 128)]);
    assert_eq!(rows[0].id, id(ONE));
    assert_eq!(list(&transcript("list-v-empty").stdout).unwrap().len(), 1);
    assert_eq!(list(&transcript("list-v-paused").stdout).unwrap()[1].state, RunState::Paused);
}

#[test]
fn flags_say_what_a_domain_is_and_nothing_else_does() {
    for (flags, state) in [
        ("r-----", Some(RunState::Running)),
        ("-b----", Some(RunState::Running)),
        ("------", Some(RunState::Running)),
        ("--p---", Some(RunState::Paused)),
        ("-bp---", Some(RunState::Paused)),
        ("---s--", Some(RunState::Shutdown)),
        ("---sc-", Some(RunState::Crashed)),
        ("---sw-", Some(RunState::Crashed)),
        ("--psr-", Some(RunState::Rebooting)),
        ("---sS-", Some(RunState::Rebooting)),
        ("---ss-", Some(RunState::Suspended)),
        ("---s?-", Some(RunState::Shutdown)),
        ("---sx-", None),
        ("--ps-d", Some(RunState::Dying)),
        ("-----d", Some(RunState::Dying)),
        ("b-----", None),
        ("-----", None),
        ("läuft-", None),
        ("", None),
    ] {
        assert_eq!(run_state(flags), state, "{flags}");
    }
}

/// With the header that is known.
fn listed(line: &str) -> Result<Vec<Row>> {
    let all = String::from_utf8(transcript("list-v-empty").stdout).unwrap();
    list(format!("{}\n{line}\n", all.lines().next().unwrap()).as_bytes())
}

#[test]
fn names_of_any_length_and_kind_push_the_columns() {
    for (name, in_transit) in [
        ("a-very-long-guest-name-that-is-over-forty-characters-wide", false),
        ("two words", false),
        ("12345", false),
        ("(null)", false),
        ("pengx-x--incoming", true),
        ("pengx-x--migratedaway", true),
    ] {
        let rows = listed(&format!("{name}    41     4     1     -b----       0.0 {ONE}        -       -")).unwrap();
        let expected = Row {
            domid: 41,
            id: id(ONE),
            name: name.to_owned(),
            state: RunState::Running,
            memory: MiB(4),
            cpu_time: Duration::ZERO,
        };
        assert_eq!(rows, [expected]);
        assert_eq!(rows[0].is_in_transit(), in_transit);
    }
}

#[test]
fn what_is_not_known_is_an_error_that_shows_the_line() {
    for line in [
        &format!("x 41 4 1 läuft- 0.0 {ONE} - -"),
        "x 41 4 1 -b---- 0.0 - - -",
        &format!("x 41 vier 1 -b---- 0.0 {ONE} - -"),
        &format!("x 41 4 1 -b---- -0.1 {ONE} - -"),
        "libxl: warning: something new",
    ] {
        let said = listed(line).unwrap_err().to_string();
        assert_eq!(said, format!("Xen refused: xl said what pengx does not understand: {line:?}"));
    }
    for stdout in [&b""[..], b"Nom ID Mem VCPUs Etat Temps(s)\n", b"\xff\xfe"] {
        let said = list(stdout).unwrap_err().to_string();
        assert!(said.starts_with("Xen refused: xl said what pengx does not understand: "), "{said}");
    }
    let long = listed(&"x".repeat(1000)).unwrap_err().to_string();
    assert!(long.len() < 300, "{long}");
}

#[test]
fn what_a_guest_is_made_of_is_read_with_what_was_plugged_in() {
    let all = details(&transcript("list-long-plugged").stdout).unwrap();
    let [guest] = &all[..] else { panic!("{all:?}") };
    assert_eq!((guest.domid, guest.id, guest.kind), (1, Some(id(ONE)), Kind::Pv));
    assert_eq!((guest.vcpus, guest.memory, guest.max_memory), (2, MiB(160), MiB(192)));
    let disks: Vec<_> = guest.disks.iter().map(|d| (d.place.as_str(), d.format.as_str(), d.writable)).collect();
    assert_eq!(disks, [("xvda", "qcow2", true), ("xvdb", "raw", true), ("xvdc", "qcow2", true), ("xvdd", "raw", true)]);
    let nics: Vec<_> = guest.nics.iter().map(|nic| (nic.number, nic.mac.as_str())).collect();
    assert_eq!(nics[2..], [(2, "00:16:3e:00:00:04"), (3, "00:16:3e:00:00:05")]);
    assert_eq!(details(&transcript("list-long-empty").stdout).unwrap(), []);
    // One whose QEMU died is left out, whatever the exit code says.
    assert_eq!(details(&transcript("list-long-device-model-died").stdout).unwrap(), []);
}

#[test]
fn secrets_are_in_no_error() {
    let text = String::from_utf8(transcript("list-long-plugged").stdout).unwrap();
    let text = text
        .replace("\"findunused\": \"True\"", "\"passwd\": \"secret\"")
        .replace("\"domid\": 1,", "\"domid\": \"secret\",");
    assert!(text.contains("secret"));
    let said = details(text.as_bytes()).unwrap_err();
    assert!(said.to_string().contains("line 3 column") && !said.story().contains("secret"), "{said:?}");
}

#[test]
fn the_host_is_told_by_name_and_number() {
    let told = info(&transcript("info").stdout).unwrap();
    assert_eq!((told.version.as_str(), told.cpus), ("4.17.7", 2));
    assert!(told.memory > MiB(1024), "{told:?}");
    let text = String::from_utf8(transcript("info").stdout).unwrap();
    for (is, becomes, says) in [
        ("xen_version ", "version ", "xen_version"),
        ("nr_cpus                : 2", "nr_cpus : zwei", "zwei"),
        ("nr_cpus                : 2", "nr_cpus : 4294967296", "nr_cpus: 4294967296"),
        ("free_memory            : 1256", "free_memory :", "free_memory"),
    ] {
        assert!(text.contains(is));
        let said = info(text.replace(is, becomes).as_bytes()).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn what_xenstore_says_is_read() {
    let cpus = b"/local/domain/8/cpu/0 = \"\"\n/local/domain/8/cpu/0/availability = \"online\"\n/local/domain/8/cpu/1 = \"\"\n/local/domain/8/cpu/1/availability = \"offline\"\n";
    assert_eq!(switched_on(cpus).unwrap(), 1);
    assert!(switched_on(b"").is_err());
    assert_eq!(port(b"5901\n").unwrap(), 5901);
    assert!(port(b"couldn't read").is_err());
}
