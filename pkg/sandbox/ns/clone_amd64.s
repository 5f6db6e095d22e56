#include "go_asm.h"
#include "textflag.h"

#define SYS_read 0
#define SYS_write 1
#define SYS_exit_group 231
#define SYS_clone3 435

// func rawClone(s *shared) (pid, errno uintptr)
TEXT ·rawClone(SB), NOSPLIT, $0-24
	MOVQ  s+0(FP), R12
	LEAQ  shared_clone(R12), DI
	MOVQ  $cloneArgs__size, SI
	MOVQ  $SYS_clone3, AX
	SYSCALL
	TESTQ AX, AX
	JEQ   perform
	CMPQ  AX, $0xfffffffffffff001
	JCC   failed
	MOVQ  AX, pid+8(FP)
	MOVQ  $0, errno+16(FP)
	RET

failed:
	NEGQ AX
	MOVQ $0, pid+8(FP)
	MOVQ AX, errno+16(FP)
	RET

	// From here on this is the child, which begins at perform: R12 holds s, the stack belongs to the parent.
wait:
	MOVQ $SYS_read, AX
	MOVQ shared_socket(R12), DI
	LEAQ shared_message(R12), SI
	MOVQ $1, DX
	SYSCALL
	CMPQ AX, $1
	JNE  exit

perform:
	LEAQ shared_calls(R12), R13
	MOVQ shared_n(R12), BX

next:
	TESTQ BX, BX
	JEQ   reply
	MOVQ  call_nr(R13), AX
	MOVQ  (call_args+0)(R13), DI
	MOVQ  (call_args+8)(R13), SI
	MOVQ  (call_args+16)(R13), DX
	MOVQ  (call_args+24)(R13), R10
	MOVQ  (call_args+32)(R13), R8
	MOVQ  (call_args+40)(R13), R9
	SYSCALL
	MOVQ  AX, call_ret(R13)
	DECQ  BX
	ADDQ  $call__size, R13
	CMPQ  AX, $0xfffffffffffff001
	JCS   next

reply:
	MOVQ $SYS_write, AX
	MOVQ shared_socket(R12), DI
	LEAQ shared_message(R12), SI
	MOVQ $1, DX
	SYSCALL
	JMP  wait

exit:
	MOVQ $SYS_exit_group, AX
	MOVQ $0, DI
	SYSCALL
	JMP  exit
