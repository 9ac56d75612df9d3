// Entry by PVH (32-bit protected mode, paging off, EBX = start info): long mode with the first 16 GiB
// mapped one to one, then CPL 3 with all ports allowed, where guest_main() runs. Interrupts stay off and there is
// no IDT: a fault ends the machine as a triple fault.

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
        movl $stack_top, %esp
        movl %ebx, %edi

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
        lgdt gdt_pointer
        ljmp $0x08, $start64

        .code64
start64:
        movl %edi, %edi
        movl $task_state, %eax          // the descriptor's base, in two pieces
        movw %ax, gdt_task_state + 2
        shrl $16, %eax
        movb %al, gdt_task_state + 4
        movb %ah, gdt_task_state + 7
        movl $0x28, %eax
        ltr %ax
        pushq $0x1b                     // SS: data, ring 3
        pushq $stack_top
        pushq $0x3002                   // RFLAGS: IOPL 3, interrupts off
        pushq $0x23                     // CS: 64-bit code, ring 3
        pushq $start3
        iretq
start3:
        xorl %ebp, %ebp
        call guest_main
1:      pause
        jmp 1b

        .data
        .align 16
gdt:
        .quad 0
        .quad 0x00af9b000000ffff        // 0x08: 64-bit code, ring 0
        .quad 0x00cf93000000ffff        // 0x10: data, ring 0
        .quad 0x00cff3000000ffff        // 0x18: data, ring 3
        .quad 0x00affb000000ffff        // 0x20: 64-bit code, ring 3
gdt_task_state:
        .quad 0x0000890000000000 + task_state_end - task_state - 1      // 0x28: 64-bit TSS
        .quad 0
gdt_end:
gdt_pointer:
        .word gdt_end - gdt - 1
        .long gdt

// The software KVM does not take IOPL over: the bitmap allows all ports as well.
task_state:
        .fill 102
        .word ports - task_state
ports:
        .fill 8192
        .byte 0xff
task_state_end:

        .align 4096
page_map:
        .quad page_pointers + 7
        .fill 511, 8, 0
page_pointers:
        .set directory, 0
        .rept 16
        .quad page_directories + (directory << 12) + 7
        .set directory, directory + 1
        .endr
        .fill 496, 8, 0
page_directories:
        .set page, 0
        .rept 16 * 512
        .quad (page << 21) + 0x87       // present, writable, user, 2 MiB
        .set page, page + 1
        .endr

        .bss
        .fill 16384
stack_top:
