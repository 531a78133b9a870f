//go:build !linux

package pieces

// LargeFile is a flag for os.Root's OpenFile that only Linux has.
const LargeFile = 0
