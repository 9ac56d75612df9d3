// Entry of every hand-made guest: PVH (32-bit protected mode, paging off, EBX = start info) to long
// mode with the first 16 GiB mapped one to one, then guest_main(). Also the way in of the other
// CPUs, copied to 0x9000, and the interrupt stubs.

        .section .note.Xen, "a", @note
        .align 4
        .long 4, 4, 18                  // XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long _start

        .text
        .code32
        .globl _start
_start:
        cld
        movl $boot_stack_top, %esp
        movl %ebx, %edi
        call enable_long_mode
        lgdt gdt_pointer
        ljmp $0x08, $start64

// Clobbers EAX, ECX, EDX.
enable_long_mode:
        movl $page_map, %eax
        movl %eax, %cr3
        movl $0x20, %eax                // PAE
        movl %eax, %cr4
        movl $0xc0000080, %ecx          // EFER
        rdmsr
        orl $0x100, %eax                // LME
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax
        movl %eax, %cr0
        ret

        .code64
start64:
        xorl %eax, %eax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $boot_stack_top, %esp
        movl %edi, %edi
        call guest_main
        movl %eax, %edi
        call power_off

// The other CPUs, started by SIPI vector 9. Position: 0x9000 and up.
        .code16
        .globl ap_start, ap_end
ap_start:
        cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        lgdtl (ap_gdt_pointer - ap_start + 0x9000)
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $0x18, $ap_start32
        .align 8
ap_gdt_pointer:
        .word gdt_end - gdt - 1
        .long gdt
ap_end:

        .code32
ap_start32:
        movw $0x20, %ax
        movw %ax, %ds
        movw %ax, %ss
        movl $1, %eax
        lock xaddl %eax, ap_next
        shll $12, %eax
        addl $ap_stacks + 4096, %eax
        movl %eax, %esp
        call enable_long_mode
        ljmp $0x08, $ap_start64
        .code64
ap_start64:
        xorl %eax, %eax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        call ap_main
1:      cli
        hlt
        jmp 1b

// Leaves long mode for real mode and jumps to the firmware's reset vector, as Linux does.
        .globl jump_to_firmware
jump_to_firmware:
        cli
        leaq real_start(%rip), %rsi
        movl $0x9000, %edi
        movl $(real_end - real_start), %ecx
        rep movsb
        pushq $0x18
        pushq $leave_long_mode
        lretq
        .code32
leave_long_mode:
        movl %cr0, %eax
        andl $0x7fffffff, %eax
        movl %eax, %cr0
        movl $0xc0000080, %ecx
        xorl %eax, %eax
        xorl %edx, %edx
        wrmsr
        movw $0x30, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        ljmp $0x28, $0x9000
        .code16
real_start:
        movl %cr0, %eax
        andl $0xfffffffe, %eax
        movl %eax, %cr0
        ljmpw $0xffff, $0
real_end:
        .code64

// Stubs: vectors with an error code push it themselves.
        .macro stub vector
        .align 16
        .if (\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17)
        .else
        pushq $0
        .endif
        pushq $\vector
        jmp stub_common
        .endm

        .align 16
        .globl stubs
stubs:
        .set vector, 0
        .rept 256
        stub vector
        .set vector, vector + 1
        .endr

stub_common:
        pushq %rax
        pushq %rcx
        pushq %rdx
        pushq %rsi
        pushq %rdi
        pushq %r8
        pushq %r9
        pushq %r10
        pushq %r11
        movq 72(%rsp), %rdi             // vector
        movq 88(%rsp), %rsi             // rip
        cld
        call interrupt
        popq %r11
        popq %r10
        popq %r9
        popq %r8
        popq %rdi
        popq %rsi
        popq %rdx
        popq %rcx
        popq %rax
        addq $16, %rsp
        iretq

        .data
        .align 4096
page_map:
        .quad page_pointers + 7
        .fill 511, 8, 0
page_pointers:
        .set table, 0
        .rept 16
        .quad page_tables + (table << 12) + 7
        .set table, table + 1
        .endr
        .fill 496, 8, 0
page_tables:
        .set page, 0
        .rept 16 * 512
        .quad (page << 21) + 0x87       // present, writable, user, 2 MiB
        .set page, page + 1
        .endr

        .align 16
gdt:
        .quad 0
        .quad 0x00af9b000000ffff        // 0x08: 64-bit code
        .quad 0x00cf93000000ffff        // 0x10: data
        .quad 0x00cf9b000000ffff        // 0x18: 32-bit code
        .quad 0x00cf93000000ffff        // 0x20: data
        .quad 0x00009b000000ffff        // 0x28: 16-bit code
        .quad 0x000093000000ffff        // 0x30: 16-bit data
gdt_end:
gdt_pointer:
        .word gdt_end - gdt - 1
        .long gdt
        .long 0
        .align 4
ap_next:
        .long 0

        .bss
        .align 4096
        .fill 16384
boot_stack_top:
ap_stacks:
        .fill 64 * 4096
