#include "store/rocks_reclaim.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "rocksdb/metadata.h"
#include "rocksdb/options.h"
#include "store/log_format.h"

namespace flux::store {
namespace {

using Clock = std::chrono::steady_clock;

// Of the tables, in per cent: for less garbage nothing is compacted.
constexpr uint64_t kGarbagePercentMin = 5;
// A group is compacted for no less than this part of Options::bytes_min.
constexpr uint64_t kGroupShare = 16;
// Tables are compacted as wholes: what lies between two deleted ranges is compacted along with them
// when it is about this much.
constexpr uint64_t kGapBytesMax = 64u << 20;
// Kept free beside what a compaction may write.
constexpr uint64_t kSpareBytes = 32u << 20;
// After a compaction of that length, as many times that nothing is compacted.
constexpr int kPauses = 9;
constexpr int kBackoffDoublingsMax = 6;
// Of a range: while a reader's snapshot holds what was deleted, it stays. Not for ever, as rows
// that were written into the range afterwards look the same.
constexpr int kCompactionsMax = 3;
// Of a row key: the shard and the table.
constexpr size_t kTablePrefixBytes = 3;

}  // namespace

uint64_t RocksReclaim::Deleted::Garbage(size_t family) const {
  return in_tables[family] - std::min(in_tables[family], live[family]);
}

uint64_t RocksReclaim::Deleted::Garbage() const {
  uint64_t total = 0;
  for (size_t family = 0; family < kFamilies; ++family) total += Garbage(family);
  return total;
}

RocksReclaim::RocksReclaim(RocksDatabase* database, Options options)
    : database_(database), options_(std::move(options)) {
  if (options_.interval > absl::ZeroDuration()) thread_ = std::thread([this] { Run(); });
}

RocksReclaim::~RocksReclaim() {
  Stop();
  if (!thread_.joinable()) return;
  // Wakes a compaction that waits for its turn.
  database_->db()->DisableManualCompaction();
  thread_.join();
}

void RocksReclaim::Stop() {
  canceled_ = true;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
}

void RocksReclaim::Note(std::vector<KeyRange> ranges) {
  if (!thread_.joinable()) return;
  bool wake = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t before = noted_.size();
    for (KeyRange& range : ranges) {
      if (range.first >= range.second) continue;
      if (noted_.size() < kNotedMax) {
        noted_.push_back(std::move(range));
        continue;
      }
      const auto [it, fresh] =
          widened_.try_emplace(range.first.substr(0, kTablePrefixBytes), range);
      if (fresh) continue;
      it->second.first = std::min(it->second.first, range.first);
      it->second.second = std::max(it->second.second, range.second);
    }
    wake = before == 0 || (before < kNotedMax / 2 && noted_.size() >= kNotedMax / 2);
  }
  if (wake) wake_.notify_one();
}

// ---- the thread
// ----------------------------------------------------------------------------------------------

void RocksReclaim::Run() {
  const auto interval = absl::ToChronoNanoseconds(options_.interval);
  Clock::time_point due = Clock::now() + interval;
  int failures = 0;
  for (;;) {
    std::vector<KeyRange> noted;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (deleted_.empty() && noted_.empty()) {
        wake_.wait(lock, [this] { return stopping_ || !noted_.empty(); });
        due = std::max(due, Clock::now() + interval);
      }
      wake_.wait_until(lock, due, [this] { return stopping_ || noted_.size() >= kNotedMax / 2; });
      if (stopping_) return;
      noted.swap(noted_);
      for (auto& [prefix, range] : widened_) noted.push_back(std::move(range));
      widened_.clear();
    }
    const Clock::time_point begin = Clock::now();
    absl::Status status;
    if (!noted.empty()) status = TakeIn(std::move(noted));
    if (status.ok() && begin < due) continue;
    absl::StatusOr<bool> compacted = status.ok() ? Look() : status;
    const Clock::time_point end = Clock::now();
    due = end + interval;
    if (compacted.ok()) {
      failures = 0;
      if (*compacted) due = std::max(due, end + kPauses * (end - begin));
    } else if (!canceled_) {
      failures = std::min(failures + 1, kBackoffDoublingsMax);
      const absl::Duration pause = options_.interval * (1 << failures);
      due = end + absl::ToChronoNanoseconds(pause);
      options_.on_warning(absl::StrCat(
          "the space of deleted rows cannot be given back: ", compacted.status().ToString(),
          "; tried again in ", absl::FormatDuration(pause)));
    }
  }
}

absl::Status RocksReclaim::TakeIn(std::vector<KeyRange> noted) {
  taken_in_ = true;
  std::vector<Deleted> fresh(noted.size());
  for (size_t i = 0; i < noted.size(); ++i) fresh[i].keys = std::move(noted[i]);
  std::move(deleted_.begin(), deleted_.end(), std::back_inserter(fresh));
  deleted_ = std::move(fresh);
  std::sort(deleted_.begin(), deleted_.end(),
            [](const Deleted& a, const Deleted& b) { return a.keys < b.keys; });
  // Before ranges are joined: what is between them is not garbage.
  const absl::Status measured = Measure();
  JoinTouching();
  FLUX_RETURN_IF_ERROR(measured);
  if (deleted_.size() > kRangesMax) FLUX_RETURN_IF_ERROR(JoinNearest());
  return Measure();
}

void RocksReclaim::Join(Deleted* into, const Deleted& next) {
  into->keys.second = std::max(into->keys.second, next.keys.second);
  for (size_t family = 0; family < kFamilies; ++family) {
    into->in_tables[family] += next.in_tables[family];
    into->live[family] += next.live[family];
  }
  into->exact = into->exact && next.exact;
  into->joined = true;
}

void RocksReclaim::JoinTouching() {
  size_t last = 0;
  for (size_t i = 1; i < deleted_.size(); ++i) {
    if (deleted_[i].keys.first <= deleted_[last].keys.second) {
      Join(&deleted_[last], deleted_[i]);
    } else if (++last != i) {
      deleted_[last] = std::move(deleted_[i]);
    }
  }
  deleted_.resize(std::min(deleted_.size(), last + 1));
}

absl::Status RocksReclaim::JoinNearest() {
  FLUX_ASSIGN_OR_RETURN(const std::vector<Bytes> gaps, GapsBehind());
  std::vector<uint64_t> sizes;
  sizes.reserve(gaps.size());
  for (const Bytes& gap : gaps) sizes.push_back(gap[kRows] + gap[kChunks]);
  std::vector<size_t> by_size(gaps.size());
  std::iota(by_size.begin(), by_size.end(), 0);
  const size_t joins = deleted_.size() - kRangesMax / 2;
  std::nth_element(by_size.begin(), by_size.begin() + static_cast<ptrdiff_t>(joins), by_size.end(),
                   [&](size_t a, size_t b) { return sizes[a] < sizes[b]; });
  std::vector<bool> across(gaps.size());
  for (size_t i = 0; i < joins; ++i) across[by_size[i]] = true;
  size_t last = 0;
  for (size_t i = 1; i < deleted_.size(); ++i) {
    if (across[i - 1]) {
      Join(&deleted_[last], deleted_[i]);
      deleted_[last].exact = false;
    } else if (++last != i) {
      deleted_[last] = std::move(deleted_[i]);
    }
  }
  deleted_.resize(last + 1);
  return absl::OkStatus();
}

absl::Status RocksReclaim::Measure() {
  for (size_t family = 0; family < kFamilies; ++family) {
    std::vector<KeyRange> keys;
    keys.reserve(deleted_.size());
    for (const Deleted& each : deleted_) keys.push_back(each.keys);
    FLUX_ASSIGN_OR_RETURN(const std::vector<uint64_t> sizes, TableBytes(family, keys));
    for (size_t i = 0; i < deleted_.size(); ++i) {
      Deleted& each = deleted_[i];
      if (each.joined) each.live[family] = sizes[i] - std::min(sizes[i], each.Garbage(family));
      if (each.exact) each.live[family] = 0;
      each.in_tables[family] = sizes[i];
    }
  }
  for (Deleted& each : deleted_) each.joined = false;
  return absl::OkStatus();
}

absl::StatusOr<bool> RocksReclaim::Look() {
  Bytes versions{};
  for (size_t family = 0; family < kFamilies; ++family) {
    versions[family] = Property(family, rocksdb::DB::Properties::kCurrentSuperVersionNumber);
  }
  if (versions == versions_ && !taken_in_) return false;
  FLUX_RETURN_IF_ERROR(Measure());
  uint64_t garbage = 0;
  for (const Deleted& each : deleted_) garbage += each.Garbage();
  uint64_t tables = 0;
  for (size_t family = 0; family < kFamilies; ++family) {
    tables += Property(family, rocksdb::DB::Properties::kLiveSstFilesSize);
  }
  if (garbage == 0 || garbage < std::max(options_.bytes_min, tables / 100 * kGarbagePercentMin)) {
    versions_ = versions;
    taken_in_ = false;
    return false;
  }
  return Compact();
}

// ---- compacting
// ----------------------------------------------------------------------------------------------

absl::StatusOr<bool> RocksReclaim::Compact() {
  FLUX_ASSIGN_OR_RETURN(const std::vector<Bytes> gaps, GapsBehind());
  std::vector<uint64_t> before;
  before.reserve(deleted_.size());
  for (const Deleted& each : deleted_) before.push_back(each.Garbage());
  std::vector<bool> compacted(deleted_.size());
  std::vector<bool> refused(deleted_.size());
  std::string shortage;
  for (size_t family = 0; family < kFamilies; ++family) {
    for (const Group& group : GroupsOf(family, gaps)) {
      const uint64_t needed = BytesNeeded(family, group);
      const uint64_t free = options_.free_bytes();
      if (free >= needed) {
        FLUX_RETURN_IF_ERROR(CompactGroup(family, group));
        if (canceled_) return false;
      } else if (shortage.empty()) {
        shortage =
            absl::StrCat("the space of deleted rows, about ", group.garbage,
                         " bytes, is not given back: that takes ", needed, " bytes meanwhile, and ",
                         free, " are free on the disk; free some space");
      }
      std::vector<bool>& marks = free >= needed ? compacted : refused;
      for (size_t i = group.begin; i < group.end; ++i) marks[i] = true;
    }
  }
  if (!shortage.empty() && !told_of_shortage_) options_.on_warning(shortage);
  told_of_shortage_ = !shortage.empty();
  FLUX_RETURN_IF_ERROR(Measure());
  std::vector<Deleted> left;
  bool any = false;
  for (size_t i = 0; i < deleted_.size(); ++i) {
    Deleted& each = deleted_[i];
    any = any || compacted[i];
    const bool held = each.exact && each.Garbage() > before[i] / 2;
    if (!compacted[i] || refused[i] || (held && ++each.compactions < kCompactionsMax)) {
      left.push_back(std::move(each));
    }
  }
  deleted_ = std::move(left);
  return any;
}

std::vector<RocksReclaim::Group> RocksReclaim::GroupsOf(size_t family,
                                                        const std::vector<Bytes>& gaps) const {
  std::vector<Group> groups;
  Group group;
  for (size_t i = 0; i < deleted_.size(); ++i) {
    group.garbage += deleted_[i].Garbage(family);
    group.end = i + 1;
    if (i + 1 < deleted_.size() && gaps[i][family] <= kGapBytesMax) continue;
    if (group.garbage > 0 && group.garbage >= options_.bytes_min / kGroupShare) {
      groups.push_back(group);
    }
    group = {i + 1, i + 1, 0};
  }
  return groups;
}

absl::Status RocksReclaim::CompactGroup(size_t family, const Group& group) {
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  options.canceled = &canceled_;
  const std::string begin = KeyIn(family, deleted_[group.begin].keys.first);
  const std::string end = KeyIn(family, deleted_[group.end - 1].keys.second);
  const rocksdb::Slice first = begin;
  const rocksdb::Slice last = end;
  const rocksdb::Status status =
      database_->db()->CompactRange(options, HandleOf(family), &first, &last);
  if (canceled_) return absl::OkStatus();
  return FromRocks(status, "compact deleted rows");
}

// A table that a compaction writes holds none of the garbage: whatever of it is in the tables that
// it reads is covered by deletions in them.
uint64_t RocksReclaim::BytesNeeded(size_t family, const Group& group) const {
  const std::string begin = KeyIn(family, deleted_[group.begin].keys.first);
  const std::string end = KeyIn(family, deleted_[group.end - 1].keys.second);
  rocksdb::ColumnFamilyMetaData tables;
  database_->db()->GetColumnFamilyMetaData(HandleOf(family), &tables);
  uint64_t read = 0;
  bool whole = false;  // level 0 overlaps itself, and takes along the first level below it
  for (const rocksdb::LevelMetaData& level : tables.levels) {
    uint64_t overlapping = 0;
    for (const rocksdb::SstFileMetaData& table : level.files) {
      if (table.smallestkey < end && table.largestkey >= begin) overlapping += table.size;
    }
    if (level.level == 0) {
      whole = overlapping > 0;
      read += whole ? level.size : 0;
    } else {
      read += whole ? level.size : overlapping;
      if (level.size > 0) whole = false;
    }
  }
  return read - std::min(read, group.garbage) + kSpareBytes;
}

// ---- asking the database
// -------------------------------------------------------------------------------------

absl::StatusOr<std::vector<uint64_t>> RocksReclaim::TableBytes(
    size_t family, const std::vector<KeyRange>& ranges) const {
  std::vector<uint64_t> sizes(ranges.size());
  if (ranges.empty()) return sizes;
  std::vector<std::string> keys;
  keys.reserve(2 * ranges.size());
  for (const auto& [begin, end] : ranges) {
    keys.push_back(KeyIn(family, begin));
    keys.push_back(KeyIn(family, end));
  }
  std::vector<rocksdb::Range> asked;
  asked.reserve(ranges.size());
  for (size_t i = 0; i < ranges.size(); ++i) asked.emplace_back(keys[2 * i], keys[2 * i + 1]);
  rocksdb::SizeApproximationOptions options;
  options.include_memtables = false;
  options.include_files = true;
  FLUX_RETURN_IF_ERROR(
      FromRocks(database_->db()->GetApproximateSizes(options, HandleOf(family), asked.data(),
                                                     static_cast<int>(asked.size()), sizes.data()),
                "measure deleted rows"));
  return sizes;
}

absl::StatusOr<std::vector<RocksReclaim::Bytes>> RocksReclaim::GapsBehind() const {
  std::vector<KeyRange> between;
  for (size_t i = 1; i < deleted_.size(); ++i) {
    between.emplace_back(deleted_[i - 1].keys.second, deleted_[i].keys.first);
  }
  std::vector<Bytes> gaps(between.size());
  for (size_t family = 0; family < kFamilies; ++family) {
    FLUX_ASSIGN_OR_RETURN(const std::vector<uint64_t> sizes, TableBytes(family, between));
    for (size_t i = 0; i < gaps.size(); ++i) gaps[i][family] = sizes[i];
  }
  return gaps;
}

uint64_t RocksReclaim::Property(size_t family, const std::string& name) const {
  uint64_t value = 0;
  (void)database_->db()->GetIntProperty(HandleOf(family), name, &value);  // 0: it is not known
  return value;
}

rocksdb::ColumnFamilyHandle* RocksReclaim::HandleOf(size_t family) const {
  return family == kRows ? database_->rows() : database_->chunks();
}

std::string RocksReclaim::KeyIn(size_t family, std::string_view row_key) const {
  return family == kRows ? std::string(row_key) : ChunkPrefix(row_key);
}

}  // namespace flux::store
