// The guest as bytes of the program. OUTBOARD_BENCH_GUEST is its file.
        .section .rodata
        .balign 16
        .globl outboard_bench_guest_begin, outboard_bench_guest_end
outboard_bench_guest_begin:
        .incbin OUTBOARD_BENCH_GUEST
outboard_bench_guest_end:
        .byte 0
        .section .note.GNU-stack, "", @progbits
