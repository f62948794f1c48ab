//! The calls of libvirt that the `virt` crate does not wrap, or wraps with a leak or without its error. The only unsafe
//! code of pengx.
//!
//! What is handed to libvirt is owned by libvirt until it calls the free callback; what libvirt hands out is freed by a
//! guard; no panic leaves a callback.
#![expect(unsafe_code, reason = "domain events, close callbacks and bulk statistics exist only as C calls")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// State and reason as libvirt numbers them, known or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawState {
    pub(super) state: i32,
    pub(super) reason: i32,
}

/// One domain of a bulk answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) uuid: Uuid,
    /// The number of this run; `None` when it is off.
    pub(super) run: Option<u32>,
    pub(super) raw: RawState,
}

/// Frees the list, the parameters and the references to domains in it.
struct Records(*mut sys::virDomainStatsRecordPtr);

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: the list came from virConnectGetAllDomainStats and nothing in it is used any more.
        unsafe { sys::virDomainStatsRecordListFree(self.0) }
    }
}

/// The state of every domain, in one call.
pub(super) fn all_states(connect: &Connect) -> Result<Vec<Row>, Error> {
    all(connect, sys::VIR_DOMAIN_STATS_STATE, 0, |record| {
        let of = |name: &str| {
            let number = record.numbers.iter().find(|(field, _)| *field == name);
            number.and_then(|(_, value)| i32::try_from(*value).ok()).unwrap_or(-1)
        };
        let raw = RawState { state: of("state.state"), reason: of("state.reason") };
        Row { uuid: record.uuid, run: record.run, raw }
    })
}

/// What every domain that runs has used, in one call; `read` is given the numbers of one by libvirt's names for them. A
/// domain that is busy is asked for less, instead of being waited for.
pub(super) fn all_stats<T>(connect: &Connect, read: impl Fn(Uuid, &[(&str, u64)]) -> T) -> Result<Vec<T>, Error> {
    let what = sys::VIR_DOMAIN_STATS_CPU_TOTAL
        | sys::VIR_DOMAIN_STATS_BALLOON
        | sys::VIR_DOMAIN_STATS_VCPU
        | sys::VIR_DOMAIN_STATS_INTERFACE
        | sys::VIR_DOMAIN_STATS_BLOCK;
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    all(connect, what, flags, |record| read(record.uuid, &record.numbers))
}

/// One domain of a bulk answer, while that is there.
struct Record<'a> {
    uuid: Uuid,
    run: Option<u32>,
    /// What is not negative.
    numbers: Vec<(&'a str, u64)>,
}

fn all<T>(
    connect: &Connect,
    what: sys::virDomainStatsTypes,
    flags: sys::virConnectGetAllDomainStatsFlags,
    read: impl Fn(&Record<'_>) -> T,
) -> Result<Vec<T>, Error> {
    let mut list = ptr::null_mut();
    // SAFETY: the connection is valid while it is borrowed; `list` is written on success only.
    let count = unsafe { sys::virConnectGetAllDomainStats(connect.as_ptr(), what, &raw mut list, flags) };
    let Ok(count) = usize::try_from(count) else { return Err(Error::last_error()) };
    if list.is_null() {
        return Ok(Vec::new());
    }
    let records = Records(list);
    // SAFETY: libvirt returned so many records, each a valid pointer until the guard frees them.
    unsafe { std::slice::from_raw_parts(records.0, count).iter().map(|&one| Ok(read(&record(&*one)?))).collect() }
}

/// # Safety
/// The record is one of libvirt's, not yet freed.
unsafe fn record(record: &sys::virDomainStatsRecord) -> Result<Record<'_>, Error> {
    let mut uuid = [0; 16];
    // SAFETY: the domain lives as long as its record; the buffer has VIR_UUID_BUFLEN bytes. Neither call leaves the process.
    let (named, run) =
        unsafe { (sys::virDomainGetUUID(record.dom, uuid.as_mut_ptr()), sys::virDomainGetID(record.dom)) };
    if named < 0 {
        return Err(Error::last_error());
    }
    let count = usize::try_from(record.nparams).unwrap_or(0);
    let mut numbers = Vec::with_capacity(count);
    if !record.params.is_null() {
        // SAFETY: libvirt filled so many parameters; a field is a NUL-terminated name; the type says which member is set.
        for param in unsafe { std::slice::from_raw_parts(record.params, count) } {
            let value = match u32::try_from(param.type_) {
                Ok(sys::VIR_TYPED_PARAM_INT) => u64::try_from(unsafe { param.value.i }).ok(),
                Ok(sys::VIR_TYPED_PARAM_UINT) => Some(u64::from(unsafe { param.value.ui })),
                Ok(sys::VIR_TYPED_PARAM_LLONG) => u64::try_from(unsafe { param.value.l }).ok(),
                Ok(sys::VIR_TYPED_PARAM_ULLONG) => Some(unsafe { param.value.ul }),
                _ => None,
            };
            if let (Some(value), Ok(field)) = (value, unsafe { CStr::from_ptr(param.field.as_ptr()) }.to_str()) {
                numbers.push((field, value));
            }
        }
    }
    Ok(Record { uuid: Uuid::from_bytes(uuid), run: (run != u32::MAX).then_some(run), numbers })
}

/// The state of one domain. (`Domain::state` forgets the error.)
pub(super) fn state(domain: &Domain) -> Result<RawState, Error> {
    let mut raw = RawState { state: -1, reason: -1 };
    // SAFETY: the domain is valid while it is borrowed; both integers outlive the call.
    let done = unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut raw.state, &raw mut raw.reason, 0) };
    if done < 0 { Err(Error::last_error()) } else { Ok(raw) }
}

/// Asks the guest to let go of a device, and does not wait for it.
pub(super) fn ask_to_let_go(domain: &Domain, alias: &CStr) -> Result<(), Error> {
    // SAFETY: the domain and the alias are valid while they are borrowed; libvirt keeps neither.
    let done = unsafe { sys::virDomainDetachDeviceAlias(domain.as_ptr(), alias.as_ptr(), sys::VIR_DOMAIN_AFFECT_LIVE) };
    if done < 0 { Err(Error::last_error()) } else { Ok(()) }
}

unsafe extern "C" {
    /// The C library's.
    fn free(memory: *mut c_void);
}

/// Frees the list, the interfaces and their addresses.
struct Interfaces {
    list: *mut sys::virDomainInterfacePtr,
    count: usize,
}

impl Interfaces {
    fn all(&self) -> &[sys::virDomainInterfacePtr] {
        if self.list.is_null() {
            return &[];
        }
        // SAFETY: libvirt returned so many interfaces, which live until the guard frees them.
        unsafe { std::slice::from_raw_parts(self.list, self.count) }
    }
}

impl Drop for Interfaces {
    fn drop(&mut self) {
        for &interface in self.all() {
            // SAFETY: it came from virDomainInterfaceAddresses and is not used any more.
            unsafe { sys::virDomainInterfaceFree(interface) }
        }
        // SAFETY: libvirt hands the list itself out as memory of the C library's.
        unsafe { free(self.list.cast()) }
    }
}

/// An address that was leased to a domain's interface, as libvirt writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) interface: String,
    pub(super) mac: String,
    pub(super) ip: String,
    pub(super) prefix: u32,
}

/// What libvirt's own networks have leased to a domain.
pub(super) fn leases(domain: &Domain) -> Result<Vec<Lease>, Error> {
    let mut list = ptr::null_mut();
    let source = sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE;
    // SAFETY: the domain is valid while it is borrowed; `list` is written on success only.
    let count = unsafe { sys::virDomainInterfaceAddresses(domain.as_ptr(), &raw mut list, source, 0) };
    let Ok(count) = usize::try_from(count) else { return Err(Error::last_error()) };
    let interfaces = Interfaces { list, count };
    // SAFETY: a text of libvirt's is NUL-terminated, or not there.
    let text = |text: *const c_char| match text.is_null() {
        true => String::new(),
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
    };
    let mut leases = Vec::new();
    for &interface in interfaces.all() {
        // SAFETY: the guard keeps each interface, and that its addresses, of which there are so many.
        let interface = unsafe { &*interface };
        let count = usize::try_from(interface.naddrs).unwrap_or(0);
        if interface.addrs.is_null() {
            continue;
        }
        for address in unsafe { std::slice::from_raw_parts(interface.addrs, count) } {
            let (interface, mac) = (text(interface.name), text(interface.hwaddr));
            leases.push(Lease { interface, mac, ip: text(address.addr), prefix: address.prefix });
        }
    }
    Ok(leases)
}

/// How far a block job is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) done: u64,
    pub(super) total: u64,
}

/// The block job on a disk, if there is one.
pub(super) fn block_job(domain: &Domain, disk: &CStr) -> Result<Option<Moved>, Error> {
    let mut info = sys::virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
    // SAFETY: domain, name and structure are valid while they are borrowed; libvirt keeps none of them.
    let found = unsafe { sys::virDomainGetBlockJobInfo(domain.as_ptr(), disk.as_ptr(), &raw mut info, 0) };
    match found {
        0 => Ok(None),
        1.. => Ok(Some(Moved { done: info.cur, total: info.end })),
        _ => Err(Error::last_error()),
    }
}

/// Writes what `top` holds into `base`; `rate` in bytes per second, here and below.
pub(super) fn commit(
    domain: &Domain,
    disk: &CStr,
    top: &CStr,
    base: &CStr,
    live: bool,
    rate: u64,
) -> Result<(), Error> {
    let mut flags = sys::VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES;
    if live {
        flags |= sys::VIR_DOMAIN_BLOCK_COMMIT_ACTIVE;
    }
    // SAFETY: domain and names are valid while they are borrowed; libvirt keeps none of them.
    let done =
        unsafe { sys::virDomainBlockCommit(domain.as_ptr(), disk.as_ptr(), base.as_ptr(), top.as_ptr(), rate, flags) };
    if done < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Copies everything to the image that the document names; it is there already. In the background: of copies that the guest
/// writes to as well (`SYNCHRONOUS_WRITES`) QEMU 7.2 dies.
pub(super) fn mirror(domain: &Domain, disk: &CStr, to: &CStr, rate: u64) -> Result<(), Error> {
    let flags = sys::VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | sys::VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB;
    let mut limit = Parameters::default();
    limit.add(sys::VIR_DOMAIN_BLOCK_COPY_BANDWIDTH, rate)?;
    // SAFETY: domain, name and document are valid while they are borrowed, the list has so many parameters; libvirt keeps
    // none of them.
    let done =
        unsafe { sys::virDomainBlockCopy(domain.as_ptr(), disk.as_ptr(), to.as_ptr(), limit.list, limit.count, flags) };
    if done < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Tells the block job on a disk to end, with its effect or without, and does not wait for it.
pub(super) fn end_block_job(domain: &Domain, disk: &CStr, pivot: bool) -> Result<(), Error> {
    let mut flags = sys::VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC;
    if pivot {
        flags |= sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT;
    }
    // SAFETY: domain and name are valid while they are borrowed; libvirt keeps neither.
    let done = unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), disk.as_ptr(), flags) };
    if done < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Numbers by name, freed with it.
struct Parameters {
    list: sys::virTypedParameterPtr,
    count: c_int,
    room: c_int,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { list: ptr::null_mut(), count: 0, room: 0 }
    }
}

impl Parameters {
    fn add(&mut self, name: &CStr, value: u64) -> Result<(), Error> {
        // SAFETY: libvirt made the list, or there is none yet; it grows it and copies the name.
        let done = unsafe {
            sys::virTypedParamsAddULLong(
                &raw mut self.list,
                &raw mut self.count,
                &raw mut self.room,
                name.as_ptr(),
                value,
            )
        };
        if done < 0 { Err(Error::last_error()) } else { Ok(()) }
    }
}

impl Drop for Parameters {
    fn drop(&mut self) {
        // SAFETY: libvirt made the list, of so many parameters; none is used any more.
        unsafe { sys::virTypedParamsFree(self.list, self.count) }
    }
}

/// What libvirt calls back.
struct Hook(Box<dyn Fn() + Send + Sync>);

impl Hook {
    fn into_opaque(call: impl Fn() + Send + Sync + 'static) -> *mut c_void {
        Box::into_raw(Box::new(Self(Box::new(call)))).cast()
    }

    /// # Safety
    /// `opaque` is from [`Hook::into_opaque`] and not yet freed.
    unsafe fn call(opaque: *mut c_void) {
        // SAFETY: the caller's promise.
        let hook = unsafe { &*opaque.cast::<Self>() };
        if catch_unwind(AssertUnwindSafe(|| (hook.0)())).is_err() {
            tracing::error!("a libvirt callback panicked");
        }
    }
}

unsafe extern "C" fn free_hook(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once for each hook, after its last call.
    drop(unsafe { Box::from_raw(opaque.cast::<Hook>()) });
}

unsafe extern "C" fn on_lifecycle(
    _connect: sys::virConnectPtr,
    _domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: registered with a hook as its opaque pointer.
    unsafe { Hook::call(opaque) };
    0
}

unsafe extern "C" fn on_reboot(_connect: sys::virConnectPtr, _domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: registered with a hook as its opaque pointer.
    unsafe { Hook::call(opaque) };
}

unsafe extern "C" fn on_close(_connect: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: registered with a hook as its opaque pointer.
    unsafe { Hook::call(opaque) };
}

/// The callbacks of one connection. They hold a reference to it, so it is closed only after this was dropped. Dropping
/// asks libvirtd, if it is still there.
pub(super) struct Subscription {
    connect: Arc<Connect>,
    events: Vec<c_int>,
}

impl Subscription {
    /// `changed` after any domain's event, `closed` once when the connection is lost. Both run on the event loop's thread.
    pub(super) fn new(
        connect: Arc<Connect>,
        changed: impl Fn() + Clone + Send + Sync + 'static,
        closed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        // SAFETY: libvirt calls a lifecycle callback with the signature of `on_lifecycle`; the generic type is how its
        // C interface takes callbacks of every kind.
        let lifecycle = unsafe {
            std::mem::transmute::<
                unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int,
                unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
            >(on_lifecycle)
        };
        let mut subscription = Self { connect, events: Vec::new() };
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, changed.clone())?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_REBOOT, on_reboot, changed)?;
        let opaque = Hook::into_opaque(closed);
        // SAFETY: the connection is valid; libvirt owns the hook from here on unless it fails.
        let done = unsafe {
            sys::virConnectRegisterCloseCallback(subscription.connect.as_ptr(), Some(on_close), opaque, Some(free_hook))
        };
        if done < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt does not free what it did not take.
            unsafe { free_hook(opaque) };
            return Err(error);
        }
        Ok(subscription)
    }

    fn register(
        &mut self,
        event: sys::virDomainEventID,
        callback: unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let opaque = Hook::into_opaque(changed);
        // SAFETY: the connection is valid, no domain means all of them; libvirt owns the hook unless it fails.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                ptr::null_mut(),
                event.cast_signed(),
                Some(callback),
                opaque,
                Some(free_hook),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt does not free what it did not take.
            unsafe { free_hook(opaque) };
            return Err(error);
        }
        self.events.push(id);
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // A dead connection answers with an error, after it has dropped its side of the callback.
        for &id in &self.events {
            // SAFETY: the id came from this connection.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), id) };
        }
        // SAFETY: the connection is valid; an error only says that the callback has had its one call.
        unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) };
    }
}
