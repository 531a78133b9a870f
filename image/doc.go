// Package image is where the builders of what BitCDN is installed from will
// live: the Raspberry Pi image, and the deb, spk, qpkg, OCI and tar packages.
//
// None of them is built yet. Until one is, BitCDN is built from source and the
// daemon is started by hand or by the units in package systemd.
package image
