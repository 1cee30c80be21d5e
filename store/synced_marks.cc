#include "store/synced_marks.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "proto/bridge.h"
#include "store/failpoint.h"

namespace flux::store {
namespace {

static_assert(std::endian::native == std::endian::little, "slots are written in place");

constexpr uint64_t kMagic = 0x3144'4E59'5358'4C46;  // "FLXSYND1", little-endian
constexpr size_t kBootIdBytes = 36;
// Two slots are written in turn, so that one is whole whenever the writer dies.
constexpr uint64_t kSlotBytes = 512;
constexpr int kSlots = 2;

struct Slot {
  uint64_t magic = kMagic;
  uint64_t sequence = 0;
  uint64_t wal_number = 0;
  uint64_t wal_bytes = 0;
  uint64_t manifest_number = 0;
  uint64_t manifest_bytes = 0;
  std::array<char, 40> boot_id{};
  uint64_t checksum = 0;
};
static_assert(sizeof(Slot) == 96);

uint64_t Checksum(const Slot& slot) { return XXH3_64bits(&slot, offsetof(Slot, checksum)); }

// Empty where the system does not say; then every start counts as after a power failure.
std::string BootId() {
  absl::StatusOr<std::string> id = ReadFile("/proc/sys/kernel/random/boot_id", kBootIdBytes);
  return id.ok() ? *id : "";
}

}  // namespace

SyncedMarks::SyncedMarks(std::string path, FileDescriptor file)
    : path_(std::move(path)), file_(std::move(file)), boot_id_(BootId()) {}

absl::StatusOr<std::unique_ptr<SyncedMarks>> SyncedMarks::Open(const std::string& path) {
  FLUX_ASSIGN_OR_RETURN(FileDescriptor file, OpenFile(path, O_RDWR | O_CREAT));
  auto marks = std::unique_ptr<SyncedMarks>(new SyncedMarks(path, std::move(file)));
  FLUX_ASSIGN_OR_RETURN(std::string bytes,
                        ReadAt(marks->file_.get(), 0, kSlots * kSlotBytes, path));
  bytes.resize(kSlots * kSlotBytes);
  for (int i = 0; i < kSlots; ++i) {
    Slot slot;
    std::memcpy(&slot, bytes.data() + i * kSlotBytes, sizeof(slot));
    if (slot.magic != kMagic || slot.checksum != Checksum(slot)) continue;
    if (slot.sequence < marks->sequence_) continue;
    marks->sequence_ = slot.sequence;
    marks->wal_ = {slot.wal_number, slot.wal_bytes};
    marks->manifest_ = {slot.manifest_number, slot.manifest_bytes};
    const std::string boot_id(slot.boot_id.data(), strnlen(slot.boot_id.data(), kBootIdBytes));
    marks->found_ = {true, !boot_id.empty() && boot_id == marks->boot_id_, marks->wal_,
                     marks->manifest_};
  }
  return marks;
}

absl::Status SyncedMarks::Write(bool sync) {
  if (Failpoint::Hit("mark_write")) return absl::UnavailableError("injected fault: mark_write");
  Slot slot;
  slot.sequence = ++sequence_;
  slot.wal_number = wal_.number;
  slot.wal_bytes = wal_.bytes;
  slot.manifest_number = manifest_.number;
  slot.manifest_bytes = manifest_.bytes;
  std::memcpy(slot.boot_id.data(), boot_id_.data(), std::min(boot_id_.size(), kBootIdBytes));
  slot.checksum = Checksum(slot);
  std::array<char, sizeof(Slot)> bytes;
  std::memcpy(bytes.data(), &slot, sizeof(slot));
  FLUX_RETURN_IF_ERROR(WriteAt(file_.get(), std::string_view(bytes.data(), bytes.size()),
                               (sequence_ % kSlots) * kSlotBytes, path_));
  if (sync && ::fdatasync(file_.get()) != 0) return ErrnoStatus(errno, "sync " + path_);
  return absl::OkStatus();
}

absl::Status SyncedMarks::MarkWal(SyncedMark mark) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (mark.number < wal_.number || mark == wal_) return absl::OkStatus();
  const bool begins = mark.number != wal_.number;
  wal_ = mark;
  return Write(begins);
}

absl::Status SyncedMarks::MarkManifest(SyncedMark mark) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (mark.number < manifest_.number || mark == manifest_) return absl::OkStatus();
  const bool begins = mark.number != manifest_.number;
  manifest_ = mark;
  return Write(begins);
}

absl::Status SyncedMarks::RetireWal(uint64_t number) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (number != wal_.number || wal_.bytes == 0) return absl::OkStatus();
  wal_.bytes = 0;
  return Write(true);
}

absl::Status SyncedMarks::Reset(SyncedMark wal, SyncedMark manifest) {
  std::lock_guard<std::mutex> lock(mutex_);
  wal_ = wal;
  manifest_ = manifest;
  return Write(true);
}

}  // namespace flux::store
