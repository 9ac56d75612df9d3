// The built guest/poweroff.S as bytes of this program.
        .section .rodata
        .globl outboard_bench_payload_begin, outboard_bench_payload_end
outboard_bench_payload_begin:
        .incbin OUTBOARD_BENCH_PAYLOAD
outboard_bench_payload_end:
        .section .note.GNU-stack, "", @progbits
