// The header of an arm64 Image (Linux Documentation/arch/arm64/booting.rst), and the way into C on
// each vCPU. The MMU stays off: every access is to device memory, aligned and in order.
        .section .head, "ax"
        .globl  _start
_start:
        b       first
        .word   0
        .quad   0                       // text_offset
        .quad   _end - _start           // image_size
        .quad   0xa                     // little-endian, 4 KiB pages, anywhere
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .word   0

first:
        adrp    x9, stacks + 4096
        mov     sp, x9
        bl      main                    // X0: the device tree
        b       stop

// Of the others, entered by PSCI CPU_ON with their number in X0.
        .globl  secondary
secondary:
        adrp    x9, stacks + 4096
        add     x9, x9, x0, lsl #12
        mov     sp, x9
        bl      other
stop:
        wfi
        b       stop

        .globl  hvc
hvc:
        hvc     #0
        ret

        .bss
        .balign 4096
stacks:
        .skip   8 * 4096
