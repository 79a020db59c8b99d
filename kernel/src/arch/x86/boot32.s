# From the 32-bit entry of PVH (paging off, ebx = hvm_start_info) to Rust with PAE on.
.section .note.Xen, "a", @note
.long 4, 8, 18                      # XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.long boot_entry, 0

.section .boot, "awx"
.code32
.global boot_entry
boot_entry:
    cli
    cld
    movl $boot_stack_end, %esp
    movl %ebx, %ebp
    movl $1, %eax
    cpuid
    movl $no_pae, %esi
    btl $6, %edx
    jnc boot_fail
    movl $no_cx8, %esi
    btl $8, %edx
    jnc boot_fail
    movl $no_apic, %esi
    btl $9, %edx
    jnc boot_fail
    movl $no_sse2, %esi
    btl $26, %edx
    jnc boot_fail
    movl $no_nx, %esi
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb boot_fail
    movl $0x80000001, %eax
    cpuid
    btl $20, %edx
    jnc boot_fail
    # The window: 896 MiB of memory from its start on, and the local APIC.
    movl $boot_pmd, %edi
    xorl %ecx, %ecx
    movl $0xe3, %eax                # present, write, accessed, dirty, 2 MiB
1:  movl %eax, (%edi, %ecx, 8)
    movl $0, 4(%edi, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $448, %ecx
    jb 1b
    movl $0xfee000fb, boot_pmd + 503*8
    movl $boot_pmd + 1, %eax
    movl %eax, boot_pdpt
    movl %eax, boot_pdpt + 24
    call paging_on
    movl $kernel_stack0_end, %esp
    pushl $0
    pushl $0
    pushl $0
    pushl %ebp
    call *(entry_rust)
1:  hlt
    jmp 1b

# Turns PAE, NX, SSE and paging on, for whichever CPU.
paging_on:
    movl %cr4, %eax
    orl $0x620, %eax                # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $boot_pdpt, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x800, %eax                # NXE
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffff3, %eax          # caches on, no emulation
    orl $0x80010002, %eax           # paging, write protection, MP
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
no_pae:  .asciz "fastgup: this CPU has no PAE; run QEMU with -cpu max\n@fastgup {\"event\":\"panic\",\"message\":\"this CPU has no PAE; run QEMU with -cpu max\"}\n@fastgup {\"event\":\"end\",\"ok\":false}\n"
no_nx:   .asciz "fastgup: this CPU has no NX; run QEMU with -cpu max\n@fastgup {\"event\":\"panic\",\"message\":\"this CPU has no NX; run QEMU with -cpu max\"}\n@fastgup {\"event\":\"end\",\"ok\":false}\n"
no_cx8:  .asciz "fastgup: this CPU has no cmpxchg8b; run QEMU with -cpu max\n@fastgup {\"event\":\"panic\",\"message\":\"this CPU has no cmpxchg8b; run QEMU with -cpu max\"}\n@fastgup {\"event\":\"end\",\"ok\":false}\n"
no_apic: .asciz "fastgup: this CPU has no local APIC; run QEMU with -cpu max\n@fastgup {\"event\":\"panic\",\"message\":\"this CPU has no local APIC; run QEMU with -cpu max\"}\n@fastgup {\"event\":\"end\",\"ok\":false}\n"
no_sse2: .asciz "fastgup: this CPU has no SSE2; run QEMU with -cpu max\n@fastgup {\"event\":\"panic\",\"message\":\"this CPU has no SSE2; run QEMU with -cpu max\"}\n@fastgup {\"event\":\"end\",\"ok\":false}\n"
.balign 4
entry_rust: .long kernel_entry
entry_cpu: .long cpu_entry
.global boot_pdpt
.balign 32
boot_pdpt: .fill 4, 8, 0
.balign 4096
.global boot_pmd
boot_pmd: .fill 512, 8, 0
boot_stack: .fill 512, 1, 0
boot_stack_end:

# What other CPUs begin with: copied to 0x8000, and entered there in real mode.
.global trampoline
.global trampoline_end
.code16
trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + (trampoline_gdtr - trampoline)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $0x8000 + (1f - trampoline)
.code32
1:  movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $boot_paging_on, %ecx
    movl 0x8000 + (trampoline_stack - trampoline), %esp
    movl $ap_high, %eax
    jmp *%eax
.balign 8
trampoline_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
trampoline_gdtr: .word 23
    .long 0x8000 + (trampoline_gdt - trampoline)
.balign 4
.global trampoline_stack
trampoline_stack: .long 0
trampoline_end:
.set boot_paging_on, paging_on

# At its own address, paging still off. esp is an address of the window, of no use before.
ap_high:
    movl %esp, %ebx
    movl $ap_stack_end, %esp
    call paging_on
    movl %ebx, %esp
    call *(entry_cpu)
1:  hlt
    jmp 1b
ap_stack: .fill 64, 1, 0
ap_stack_end:
