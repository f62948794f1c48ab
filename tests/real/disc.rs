//! Discs of ISO 9660, made here: one with nothing but a label, and one that boots.

use std::path::Path;

const SECTOR: usize = 2048;

/// Of a hard disk.
pub(super) const BLOCK: usize = 512;

/// Where the boot program keeps, in the block that it writes: how often it ran, and the BIOS's number of the drive that it
/// came from.
pub(super) const RUNS: usize = 12;
pub(super) const DRIVE: usize = 13;

/// What the boot program's block begins with, after the jump over it.
pub(super) const MARK: &[u8; 10] = b"PENGX-DISC";

/// Only what a label is read from.
pub(super) fn labelled(file: &Path, label: &str) {
    let mut image = vec![0; 18 * SECTOR];
    descriptors(&mut image, label);
    std::fs::write(file, image).unwrap();
}

/// A BIOS boots it (El Torito, no emulation) and runs [`program`].
pub(super) fn bootable(file: &Path) {
    let mut image = vec![0; 21 * SECTOR];
    descriptors(&mut image, "INSTALLER");
    let boot_record = &mut image[17 * SECTOR..][..SECTOR];
    boot_record[..7].copy_from_slice(b"\x00CD001\x01");
    boot_record[7..][..23].copy_from_slice(b"EL TORITO SPECIFICATION");
    boot_record[0x47] = 19;
    image[18 * SECTOR..][..7].copy_from_slice(b"\xffCD001\x01");
    image[19 * SECTOR..][..64].copy_from_slice(&catalog());
    image[20 * SECTOR..][..BLOCK].copy_from_slice(&program());
    std::fs::write(file, image).unwrap();
}

/// The primary descriptor, as far as anybody here reads it.
fn descriptors(image: &mut [u8], label: &str) {
    image[16 * SECTOR..][..7].copy_from_slice(b"\x01CD001\x01");
    image[16 * SECTOR + 40..][..32].copy_from_slice(format!("{label:32}").as_bytes());
}

/// One entry: four blocks of sector 20, to be loaded where a BIOS loads boot sectors.
fn catalog() -> [u8; 64] {
    let mut catalog = [0; 64];
    catalog[0] = 1;
    // The words of the first entry add up to zero.
    let sum = 0x0001_u16.wrapping_add(0xaa55);
    catalog[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    catalog[30..32].copy_from_slice(&[0x55, 0xaa]);
    catalog[32] = 0x88;
    catalog[38] = 4;
    catalog[40] = 20;
    catalog
}

/// A boot sector that counts its run, notes the drive that it came from, and copies itself to the first hard disk's first
/// block: so it boots from there next time.
fn program() -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..2].copy_from_slice(&[0xeb, 0x0e]); // jmp 16
    block[2..12].copy_from_slice(MARK);
    let code: &[&[u8]] = &[
        &[0x31, 0xc0],             // xor ax, ax
        &[0x8e, 0xd8],             // mov ds, ax
        &[0x8e, 0xc0],             // mov es, ax
        &[0x8e, 0xd0],             // mov ss, ax
        &[0xbc, 0x00, 0x7c],       // mov sp, 0x7c00
        &[0xfe, 0x06, 0x0c, 0x7c], // inc byte [0x7c00 + RUNS]
        &[0x88, 0x16, 0x0d, 0x7c], // mov [0x7c00 + DRIVE], dl
        &[0xb8, 0x01, 0x03],       // mov ax, 0x0301: write one block
        &[0xbb, 0x00, 0x7c],       // mov bx, 0x7c00: from here
        &[0xb9, 0x01, 0x00],       // mov cx, 1: to cylinder 0, sector 1
        &[0xba, 0x80, 0x00],       // mov dx, 0x80: head 0 of the first hard disk
        &[0xcd, 0x13],             // int 0x13
        &[0xf4],                   // hlt
        &[0xeb, 0xfd],             // jmp to the hlt
    ];
    let code = code.concat();
    block[16..][..code.len()].copy_from_slice(&code);
    block[510..].copy_from_slice(&[0x55, 0xaa]);
    block
}
