// A boot sector that QEMU's firmware finds on an NVMe disk: reads blocks 1 to 8, writes them to 16
// to 23, reads those back, compares, says PASSED on the serial port, and ends QEMU.
  .code16
  .globl _start
_start:
  cli
  xor %ax, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %ss
  mov $0x7c00, %sp
  sti
  cld
  mov %dl, drive
  mov $'R', %al
  call say
  mov $0x4200, %ax        // extended read
  call transfer           // blocks 1..8 to 0x8000
  movb $16, first
  mov $'W', %al
  call say
  mov $0x4300, %ax        // extended write
  call transfer
  movw $0xa000, buffer
  mov $'B', %al
  call say
  mov $0x4200, %ax
  call transfer
  mov $0x8000, %si
  mov $0xa000, %di
  mov $2048, %cx
  repe cmpsw
  jne failed
  mov $passed, %si
1:
  lodsb
  test %al, %al
  jz finished
  call say
  jmp 1b
finished:
  mov $0x501, %dx
  xor %al, %al            // status 1
  out %al, %dx
2:
  hlt
  jmp 2b

transfer:
  mov $packet, %si
  mov drive, %dl
  int $0x13
  jc failed
  ret

failed:
  mov $'F', %al
  call say
  mov $0x501, %dx
  mov $1, %al             // status 3
  out %al, %dx
3:
  hlt
  jmp 3b

say:
  push %dx
  mov $0x3f8, %dx
  out %al, %dx
  pop %dx
  ret

drive:
  .byte 0
  .balign 4
packet:
  .byte 16, 0
  .word 8
buffer:
  .word 0x8000, 0
first:
  .long 1, 0
passed:
  .asciz " PASSED\n"
  .org 510
  .word 0xaa55
