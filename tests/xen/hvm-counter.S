/*
 * A disk for HVM guests: its boot sector writes a heartbeat twice a second to sector 1, by
 * the BIOS alone (INT 13h). For machines on which no Linux kernel runs in an HVM guest.
 * The line is that of the golden guest as far as there is something to say;
 * `tests/lab/heartbeat.sh IMAGE FORMAT 512` reads it. The guest hears no power button.
 */
        .code16
        .globl  _start
_start: ljmp    $0, $1f
1:      xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $_start, %sp
        sti
        movb    $0x42, %ah              /* read */
        call    disk
        jc      stop
        movw    $boots, %di
        call    next
beat:   movw    $seq, %di
        call    next
        movw    $0x4300, %ax            /* write, without verifying */
        call    disk
        jc      stop
        movw    $9, %cx                 /* ticks of 55 ms */
tick:   movw    0x46c, %bx
2:      hlt
        cmpw    0x46c, %bx
        je      2b
        loop    tick
        jmp     beat
stop:   hlt
        jmp     stop

/* The BIOS left the drive's number in dl, and keeps it. */
disk:   movw    $packet, %si
        int     $0x13
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
packet: .byte   16, 0
        .word   1, line, 0              /* one sector, there, segment 0 */
        .quad   1
        .org    510
        .word   0xaa55

line:   .ascii  "PENGX-HB disk=hda boots=0000000000"
boots = . - 1
        .ascii  " seq=0000000000"
seq = . - 1
        .org    1023, ' '
        .ascii  "\n"
