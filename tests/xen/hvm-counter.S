/*
 * A disk for HVM guests: its boot sector writes a heartbeat twice a second to sector 1, by
 * the BIOS alone (INT 13h). For machines on which no Linux kernel runs in an HVM guest.
 * The line is that of the golden guest as far as there is something to say;
 * `tests/lab/heartbeat.sh IMAGE FORMAT 512` reads it. The guest switches itself off when its
 * power button is pressed, and reboots when somebody has written an R to the begin of sector 2.
 * On its serial port it says what the golden guest says there.
 */
        .code16
        .globl  _start
_start: ljmp    $0, $1f
1:      xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $_start, %sp
        sti
        movb    %dl, drive              /* the BIOS left its number there */
        movw    $heart, %si
        call    read
        movw    $boots, %di
        call    next
        movw    $ready, %si
        cld
say:    movw    $0x3fd, %dx             /* the first serial port's line status */
        inb     %dx, %al
        testb   $0x20, %al              /* it takes a byte */
        jz      say
        lodsb
        movw    $0x3f8, %dx
        outb    %al, %dx
        cmpb    $'\n', %al
        jne     say
beat:   movw    $seq, %di
        call    next
        movw    $heart, %si
        call    write
        movw    $0x1f7, %dx             /* command and status of the first IDE channel */
        movb    $0xe7, %al              /* flush, or the tables of a qcow2 stay in QEMU */
        outb    %al, %dx
busy:   inb     %dx, %al
        testb   $0x80, %al
        jnz     busy
        movw    $wish, %si
        call    read
        cmpb    $'R', wished
        je      reboot
        movw    $9, %cx                 /* ticks of 55 ms */
tick:   movw    0x46c, %bx
2:      hlt
        cmpw    0x46c, %bx
        je      2b
        movw    $0xb000, %dx            /* PM1 status, where Xen's firmware puts it */
        inw     %dx, %ax
        testb   $1, %ah                 /* the power button */
        jnz     off
        loop    tick
        jmp     beat

reboot: movb    $0, wished
        call    write
        movb    $0xfe, %al              /* the keyboard's controller resets the machine */
        outb    %al, $0x64
        jmp     stop
off:    movw    $0xb004, %dx            /* PM1 control */
        movw    $0x2000, %ax            /* sleep, as deep as it gets */
        outw    %ax, %dx
stop:   hlt
        jmp     stop

/* One sector, of the packet in si; nothing goes on without. */
read:   movb    $0x42, %ah
        jmp     disk
write:  movw    $0x4300, %ax            /* without verifying */
disk:   movb    drive, %dl
        int     $0x13
        jc      stop
        ret

/* Adds one to a decimal number; di is its last digit. */
next:   incb    (%di)
        cmpb    $'9', (%di)
        jbe     3f
        movb    $'0', (%di)
        decw    %di
        jmp     next
3:      ret

        .balign 4
heart:  .byte   16, 0
        .word   1, line, 0              /* one sector, there, segment 0 */
        .quad   1
wish:   .byte   16, 0
        .word   1, wished, 0
        .quad   2
drive:  .byte   0
ready:  .ascii  "PENGX-GUEST-READY\n"
        .org    510
        .word   0xaa55

line:   .ascii  "PENGX-HB disk=hda boots=0000000000"
boots = . - 1
        .ascii  " seq=0000000000"
seq = . - 1
        .org    1023, ' '
        .ascii  "\n"
wished: .org    1536
