//! The tables as diesel sees them, for both databases; kept by hand. A test compares it with the migrations of both.

diesel::table! {
    pms (id) {
        id -> Text,
        name -> Text,
        cpu -> Integer,
        memory -> BigInt,
        ssh_pubkey -> Nullable<Text>,
        hypervisor -> Text,
        heartbeat_at -> Timestamp,
        created_at -> Timestamp,
        updated_at -> Timestamp,
    }
}

diesel::table! {
    storlinks (id) {
        id -> Integer,
        uuid -> Text,
        pm -> Text,
        name -> Text,
        link -> Text,
        kind -> Text,
        level -> Text,
        size -> BigInt,
        free -> BigInt,
        description -> Text,
        shared -> Bool,
        marked -> Bool,
    }
}

diesel::table! {
    templates (id) {
        id -> Text,
        name -> Text,
        os -> Text,
        os_arch -> Text,
        description -> Text,
        pm -> Text,
        created_at -> Timestamp,
        recent_booted_at -> Nullable<Timestamp>,
        updated_at -> Timestamp,
        state -> Text,
        vnc_port -> Nullable<Integer>,
        iso -> Nullable<Text>,
        vnc_password -> Nullable<Text>,
    }
}

diesel::table! {
    vms (id) {
        id -> Text,
        template -> Nullable<Text>,
        pm -> Text,
        name -> Text,
        cpu -> Integer,
        memory -> BigInt,
        maxmem -> BigInt,
        description -> Text,
        pcivf -> Nullable<Text>,
        vnc_password -> Text,
        created_at -> Timestamp,
        recent_booted_at -> Nullable<Timestamp>,
        updated_at -> Timestamp,
        state -> Text,
        vnc_port -> Nullable<Integer>,
        iso -> Nullable<Text>,
        snapshot -> Nullable<Text>,
    }
}

diesel::table! {
    disks (id) {
        id -> Text,
        vm -> Nullable<Text>,
        template -> Nullable<Text>,
        snapshot -> Nullable<Text>,
        backup -> Nullable<Text>,
        position -> Integer,
        size -> BigInt,
        format -> Text,
        storlink -> Integer,
        volume -> Text,
        description -> Nullable<Text>,
        created_at -> Timestamp,
        backing -> Nullable<Text>,
    }
}

diesel::table! {
    snapshots (id) {
        id -> Text,
        vm -> Text,
        name -> Text,
        kind -> Text,
        parent -> Nullable<Text>,
        description -> Text,
        created_at -> Timestamp,
    }
}

diesel::table! {
    backups (id) {
        id -> Text,
        vm -> Text,
        name -> Text,
        storlink -> Integer,
        size -> BigInt,
        description -> Text,
        created_at -> Timestamp,
        config -> Text,
        manifest -> Text,
        verified_at -> Nullable<Timestamp>,
        proven_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    nics (id) {
        id -> Integer,
        uuid -> Text,
        vm -> Text,
        name -> Text,
        mac -> Text,
        switch -> Text,
        ip -> Nullable<Text>,
    }
}

diesel::table! {
    networks (id) {
        id -> Integer,
        pm -> Text,
        name -> Text,
        category -> Text,
        method -> Text,
        mac -> Nullable<Text>,
        ip -> Nullable<Text>,
        prefix -> Nullable<Integer>,
        bridge_type -> Nullable<Text>,
        bridge_ports -> Nullable<Text>,
        bond_slaves -> Nullable<Text>,
        bond_mode -> Nullable<Integer>,
    }
}

diesel::table! {
    dns (id) {
        id -> Integer,
        pm -> Text,
        ipaddress1 -> Nullable<Text>,
        ipaddress2 -> Nullable<Text>,
    }
}

diesel::table! {
    sriov (id) {
        id -> Integer,
        pm -> Text,
        pf -> Text,
        vf -> Text,
    }
}

diesel::table! {
    storages (id) {
        id -> Integer,
        pm -> Text,
        category -> Text,
        uuid -> Nullable<Text>,
        size -> Nullable<BigInt>,
        free -> Nullable<BigInt>,
        mount_point -> Nullable<Text>,
        target_ip -> Nullable<Text>,
        target -> Nullable<Text>,
        pv_ids -> Nullable<Text>,
        lv_no -> Nullable<Integer>,
        vg_id -> Nullable<Integer>,
        device_id -> Nullable<Integer>,
        drbd_rsc_name -> Nullable<Text>,
        drbd_disk -> Nullable<Integer>,
        drbd_peer_ip -> Nullable<Text>,
    }
}

diesel::table! {
    ocfs2 (id) {
        id -> Integer,
        storage -> Nullable<Integer>,
        pm_uuid -> Text,
        peer_ip -> Text,
        peer_name -> Text,
        number -> Integer,
    }
}

diesel::table! {
    tasks (id) {
        id -> Text,
        kind -> Text,
        subject -> Text,
        state -> Text,
        percent -> Integer,
        step -> Text,
        error -> Nullable<Text>,
        message -> Text,
        pm -> Text,
        process -> Text,
        created_at -> Timestamp,
        started_at -> Nullable<Timestamp>,
        ended_at -> Nullable<Timestamp>,
        account -> Nullable<Text>,
    }
}

diesel::table! {
    locks (resource, task) {
        resource -> Text,
        task -> Text,
        access -> Text,
    }
}

diesel::table! {
    journal (task, seq) {
        task -> Text,
        seq -> Integer,
        direction -> Text,
        compensation -> Text,
    }
}

diesel::table! {
    users (id) {
        id -> Text,
        name -> Text,
        password -> Text,
        role -> Text,
        created_at -> Timestamp,
        updated_at -> Timestamp,
        sees -> Nullable<Text>,
    }
}

diesel::table! {
    tokens (id) {
        id -> Text,
        owner -> Text,
        name -> Text,
        digest -> Text,
        created_at -> Timestamp,
        expires_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    generation (id) {
        id -> Integer,
        value -> BigInt,
    }
}

diesel::table! {
    reservations (task, storlink) {
        task -> Text,
        storlink -> Integer,
        size -> BigInt,
    }
}

diesel::table! {
    site (id) {
        id -> Integer,
        uuid -> Text,
    }
}

diesel::table! {
    numbers (number) {
        number -> Integer,
        vm -> Text,
    }
}

diesel::table! {
    promised_numbers (number) {
        number -> Integer,
        promised_at -> Timestamp,
        expires_at -> Timestamp,
        task -> Nullable<Text>,
    }
}

diesel::table! {
    tenants (id) {
        id -> Text,
        name -> Text,
        password -> Text,
        created_at -> Timestamp,
        had_vms -> Bool,
    }
}

diesel::table! {
    tenancies (vm) {
        vm -> Text,
        tenant -> Text,
        swap -> BigInt,
        since -> Timestamp,
    }
}

diesel::table! {
    deletions (vm) {
        vm -> Text,
        id -> Text,
        asked_at -> Timestamp,
        task -> Nullable<Text>,
    }
}

diesel::joinable!(vms -> templates (template));
diesel::joinable!(locks -> tasks (task));
diesel::joinable!(journal -> tasks (task));
diesel::joinable!(promised_numbers -> tasks (task));
diesel::joinable!(deletions -> tasks (task));
diesel::allow_tables_to_appear_in_same_query!(vms, templates);
diesel::allow_tables_to_appear_in_same_query!(locks, tasks);
diesel::allow_tables_to_appear_in_same_query!(journal, tasks);
diesel::allow_tables_to_appear_in_same_query!(promised_numbers, tasks);
diesel::allow_tables_to_appear_in_same_query!(deletions, tasks);
diesel::allow_tables_to_appear_in_same_query!(numbers, vms);
