# From the 32-bit entry of PVH (paging off, ebx = hvm_start_info) to Rust in long mode. LEVELS is 4 or 5.
.section .note.Xen, "a", @note
.long 4, 8, 18                      # XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.quad boot_entry

.section .boot, "awx"
.code32
.global boot_entry
boot_entry:
    cli
    cld
    movl $boot_stack_end, %esp
    movl %ebx, %ebp
    movl $no_long, %esi
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb boot_fail
    movl $0x80000001, %eax
    cpuid
    movl $no_nx, %esi
    btl $20, %edx
    jnc boot_fail
    movl $no_long, %esi
    btl $29, %edx
    jnc boot_fail
.if LEVELS == 5
    movl $no_la57, %esi
    xorl %eax, %eax
    cpuid
    cmpl $7, %eax
    jb boot_fail
    movl $7, %eax
    xorl %ecx, %ecx
    cpuid
    btl $16, %ecx
    jnc boot_fail
.endif
    # Four GiB by pages of 2 MiB.
    movl $boot_pmds, %edi
    xorl %ecx, %ecx
    movl $0xe3, %eax                # present, write, accessed, dirty, 2 MiB
1:  movl %eax, (%edi, %ecx, 8)
    movl $0, 4(%edi, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jb 1b
    orl $0x18, boot_pmds + 2039*8   # the local APIC, at 0xfee00000: uncached
    movl $boot_pmds + 3, boot_pdpt
    movl $boot_pmds + 0x1003, boot_pdpt + 8
    movl $boot_pmds + 0x2003, boot_pdpt + 16
    movl $boot_pmds + 0x3003, boot_pdpt + 24
    movl $boot_pmds + 3, boot_pdpt + 510*8
    movl $boot_pdpt + 3, boot_pml4
    movl $boot_pdpt + 7, boot_pml4 + 511*8
.if LEVELS == 5
    movl $boot_pml4 + 3, boot_root
    movl $boot_pml4 + 7, boot_root + 511*8
.endif
    call paging_on
    lgdtl boot_gdtr
    ljmpl $8, $1f
.code64
1:  xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movq $kernel_stack0_end, %rsp
    movl %ebp, %edi
    xorl %ebp, %ebp
    movq $kernel_entry, %rax
    call *%rax
1:  hlt
    jmp 1b

.code32
# Turns long mode on, for whichever CPU.
paging_on:
    movl %cr4, %eax
    orl $0x20 + ((LEVELS - 4) << 12), %eax
    movl %eax, %cr4
    movl $boot_root, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax                # LME, NXE
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffff3, %eax
    orl $0x80010002, %eax           # paging, write protection
    movl %eax, %cr0
    ret

# Prints the text at esi and ends the machine.
boot_fail:
    movl $0x3f8, %edx
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  movl $0x11, %eax
    outl %eax, $0xf4
3:  cli
    hlt
    jmp 3b
no_long: .asciz "fastgup: this CPU has no long mode; run qemu-system-x86_64 with -cpu max, or the pae image\n@fastgup {\"event\":\"panic\",\"message\":\"this CPU has no long mode; run qemu-system-x86_64 with -cpu max, or the pae image\"}\n@fastgup {\"event\":\"end\",\"ok\":false}\n"
no_nx:   .asciz "fastgup: this CPU has no NX; run QEMU with -cpu max\n@fastgup {\"event\":\"panic\",\"message\":\"this CPU has no NX; run QEMU with -cpu max\"}\n@fastgup {\"event\":\"end\",\"ok\":false}\n"
no_la57: .asciz "fastgup: this CPU has no LA57; run QEMU with -cpu max, or the x86_64 image\n@fastgup {\"event\":\"panic\",\"message\":\"this CPU has no LA57; run QEMU with -cpu max, or the x86_64 image\"}\n@fastgup {\"event\":\"end\",\"ok\":false}\n"
.balign 8
boot_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
boot_gdtr: .word 31
    .quad boot_gdt
.balign 4096
.if LEVELS == 4
.global boot_root
boot_root:
.endif
boot_pml4: .fill 512, 8, 0
.if LEVELS == 5
.global boot_root
boot_root: .fill 512, 8, 0
.endif
.global boot_pdpt
boot_pdpt: .fill 512, 8, 0
boot_pmds: .fill 2048, 8, 0
boot_stack: .fill 512, 1, 0
boot_stack_end:

# What other CPUs begin with: copied to 0x8000, and entered there in real mode.
.global trampoline
.global trampoline_end
.global trampoline_stack
.code16
trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + (trampoline_gdtr - trampoline)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $24, $0x8000 + (1f - trampoline)
.code32
1:  movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $ap_low, %eax
    jmp *%eax
.balign 8
trampoline_gdtr: .word 31
    .long boot_gdt
.balign 8
trampoline_stack: .quad 0
trampoline_end:

ap_low:
    movl $ap_stack_end, %esp
    call paging_on
    ljmpl $8, $1f
.code64
1:  movq 0x8000 + (trampoline_stack - trampoline), %rsp
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movq $cpu_entry, %rax
    call *%rax
1:  hlt
    jmp 1b
ap_stack: .fill 64, 1, 0
ap_stack_end:
