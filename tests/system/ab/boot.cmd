# A/B selection with RAUC's variables for U-Boot: BOOT_ORDER and BOOT_<slot>_LEFT, counted down before the start.
# The packaged U-Boot has no environment that lasts, no saveenv and no setexpr: the environment is a file in
# fw_setenv's format.  fatwrite makes that file anew.
setenv address 0x2000000
setenv size 0x4000
if load virtio 0:2 ${address} uboot.env; then
    env import -c ${address} ${size}
fi
test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3

setenv slot
for round in 1 2; do
    for s in "${BOOT_ORDER}"; do
        if test "x${slot}" != "x"; then
            true
        elif test "x${s}" = "xA"; then
            if test ${BOOT_A_LEFT} -gt 0; then
                setenv slot A
                setenv part 3
                if test ${BOOT_A_LEFT} -ge 3; then setenv BOOT_A_LEFT 2
                elif test ${BOOT_A_LEFT} -eq 2; then setenv BOOT_A_LEFT 1
                else setenv BOOT_A_LEFT 0; fi
            fi
        elif test "x${s}" = "xB"; then
            if test ${BOOT_B_LEFT} -gt 0; then
                setenv slot B
                setenv part 4
                if test ${BOOT_B_LEFT} -ge 3; then setenv BOOT_B_LEFT 2
                elif test ${BOOT_B_LEFT} -eq 2; then setenv BOOT_B_LEFT 1
                else setenv BOOT_B_LEFT 0; fi
            fi
        fi
    done
    if test "x${slot}" = "x"; then
        echo "U-BOOT no attempts left, starting over"
        setenv BOOT_ORDER "A B"
        setenv BOOT_A_LEFT 3
        setenv BOOT_B_LEFT 3
    fi
done
env export -c -s ${size} ${address} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT
fatwrite virtio 0:2 ${address} uboot.env ${size}

echo "U-BOOT slot=${slot} ORDER=${BOOT_ORDER} A=${BOOT_A_LEFT} B=${BOOT_B_LEFT}"
load virtio 0:${part} 0x1000000 /boot/vmlinuz || reset
setenv kernelsize ${filesize}
load virtio 0:${part} 0x8000000 /boot/initrd.img || reset
setenv bootargs "root=/dev/vda${part} ro rauc.slot=${slot} @ARGUMENTS@"
zboot 0x1000000 ${kernelsize} 0x8000000 ${filesize}
reset
