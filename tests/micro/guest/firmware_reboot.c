// Reboots once by jumping to the firmware's reset vector in real mode, as Linux does where ACPI is
// hardware-reduced and there is no EFI.
#include "guest.h"

#define COUNTER 0x6000000UL

void jump_to_firmware(void);

int guest_main(void* start_info) {
  (void)start_info;
  if (read64(COUNTER) == 0x7761726dUL) passed();
  write64(COUNTER, 0x7761726dUL);
  put_string("jumping\n");
  jump_to_firmware();
  failed("came back", 0);
}
