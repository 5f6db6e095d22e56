package state

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// sealSize is the number of bytes that seal adds.
const sealSize = 4

var errSeal = errors.New("checksum does not match")

// seal returns value with a CRC-32C behind it that covers bucket and key too:
// bbolt has checksums for its two meta pages alone.
func seal(bucket, key string, value []byte) []byte {
	sealed := make([]byte, 0, len(value)+sealSize)
	sealed = append(sealed, value...)
	return binary.BigEndian.AppendUint32(sealed, checksum(bucket, key, value))
}

// unseal returns the value inside sealed, which shares its memory, or errSeal.
func unseal(bucket, key string, sealed []byte) ([]byte, error) {
	n := len(sealed) - sealSize
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != checksum(bucket, key, sealed[:n]) {
		return nil, errSeal
	}
	return sealed[:n:n], nil
}

func checksum(bucket, key string, value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, []byte(bucket+"\x00"+key+"\x00"))
	return crc32.Update(sum, table, value)
}
