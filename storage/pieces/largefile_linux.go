package pieces

import "syscall"

// LargeFile is a flag for os.Root's OpenFile, which unlike os.OpenFile does not
// set it by itself: without it a 32-bit Linux opens no file above 2 GiB.
const LargeFile = syscall.O_LARGEFILE
