#include "go_asm.h"
#include "textflag.h"

#define SYS_read 63
#define SYS_write 64
#define SYS_exit_group 94
#define SYS_clone3 435

// func rawClone(s *shared) (pid, errno uintptr)
TEXT ·rawClone(SB), NOSPLIT|NOFRAME, $0-24
	MOVD s+0(FP), R19
	ADD  $shared_clone, R19, R0
	MOVD $cloneArgs__size, R1
	MOVD $SYS_clone3, R8
	SVC
	CBZ  R0, perform
	CMN  $4095, R0
	BCS  failed
	MOVD R0, pid+8(FP)
	MOVD ZR, errno+16(FP)
	RET

failed:
	NEG  R0, R0
	MOVD ZR, pid+8(FP)
	MOVD R0, errno+16(FP)
	RET

	// From here on this is the child, which begins at perform: R19 holds s, the stack belongs to the parent.
wait:
	MOVD $SYS_read, R8
	MOVD shared_socket(R19), R0
	ADD  $shared_message, R19, R1
	MOVD $1, R2
	SVC
	CMP  $1, R0
	BNE  exit

perform:
	ADD  $shared_calls, R19, R20
	MOVD shared_n(R19), R21

next:
	CBZ  R21, reply
	MOVD call_nr(R20), R8
	MOVD (call_args+0)(R20), R0
	MOVD (call_args+8)(R20), R1
	MOVD (call_args+16)(R20), R2
	MOVD (call_args+24)(R20), R3
	MOVD (call_args+32)(R20), R4
	MOVD (call_args+40)(R20), R5
	SVC
	MOVD R0, call_ret(R20)
	SUB  $1, R21
	ADD  $call__size, R20
	CMN  $4095, R0
	BCC  next

reply:
	MOVD $SYS_write, R8
	MOVD shared_socket(R19), R0
	ADD  $shared_message, R19, R1
	MOVD $1, R2
	SVC
	B    wait

exit:
	MOVD $SYS_exit_group, R8
	MOVD ZR, R0
	SVC
	B    exit
