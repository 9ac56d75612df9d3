// The payload of `outboard-bench start`: PVH entry (32-bit protected mode, paging off, EBX = start
// info), one byte on the serial port, power-off. With a command line that begins with 'h' it holds
// instead of powering off, so that the monitor's memory can be read.

        .section .note.Xen, "a", @note
        .align 4
        .long 4, 4, 18                  // XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long _start

        .text
        .code32
        .globl _start
_start:
        movw $0x3f8, %dx                // first serial port, transmit
        movb $'B', %al
        outb %al, %dx
        movl 24(%ebx), %esi             // hvm_start_info.cmdline_paddr, its low half
        testl %esi, %esi
        jz power_off
        cmpb $'h', (%esi)
        je hold
power_off:
        movw $0x600, %dx                // outboard, Cloud Hypervisor: ACPI sleep control, S5
        movb $0x34, %al
        outb %al, %dx
        movw $0x501, %dx                // QEMU: isa-debug-exit
        xorl %eax, %eax
        outb %al, %dx
hold:
        cli
        hlt
        jmp hold
