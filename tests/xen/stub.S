/*
 * A PV guest that waits for ever: it answers no request, and needs 4 MiB. For tests of
 * many guests, of deadlines, and of what is said of a guest without drivers.
 * Linked to 1 MiB; the notes tell Xen's domain builder that it can be loaded.
 */
        .text
        .globl  _start
_start: movl    $29, %eax               /* sched_op */
        movl    $1, %edi                /* block */
        xorl    %esi, %esi
        syscall
        jmp     _start

        .section .note.Xen, "a", @note
        .macro  note type, value:vararg
        .long   4, 9f - 8f, \type
        .asciz  "Xen"
8:      \value
9:      .balign 4
        .endm
        note    3, .quad 0              /* addresses in the file are physical ones */
        note    5, .asciz "xen-3.0"
        note    8, .asciz "generic"     /* loader */
