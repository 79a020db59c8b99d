//! What compilers call to copy and compare memory, by string instructions.

use core::arch::global_asm;

#[cfg(target_arch = "x86")]
global_asm!(
    r#"
    .text
    .global memcpy, memmove, memset, memcmp, bcmp
memcpy:
    pushl %edi
    pushl %esi
    movl 12(%esp), %edi
    movl 16(%esp), %esi
    movl 20(%esp), %ecx
    movl %edi, %eax
    rep movsb
    popl %esi
    popl %edi
    ret
memmove:
    pushl %edi
    pushl %esi
    movl 12(%esp), %edi
    movl 16(%esp), %esi
    movl 20(%esp), %ecx
    movl %edi, %eax
    cmpl %esi, %edi
    jbe 1f
    leal -1(%esi, %ecx), %esi
    leal -1(%edi, %ecx), %edi
    std
1:  rep movsb
    cld
    popl %esi
    popl %edi
    ret
memset:
    pushl %edi
    movl 8(%esp), %edi
    movl 12(%esp), %eax
    movl 16(%esp), %ecx
    rep stosb
    movl 8(%esp), %eax
    popl %edi
    ret
bcmp:
memcmp:
    pushl %edi
    pushl %esi
    movl 12(%esp), %esi
    movl 16(%esp), %edi
    movl 20(%esp), %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    repe cmpsb
    je 1f
    movzbl -1(%esi), %eax
    movzbl -1(%edi), %edx
1:  subl %edx, %eax
    popl %esi
    popl %edi
    ret
    "#,
    options(att_syntax)
);
