// What is the RocksDB store's own: its directory, damage to its files, full disks, failed writes.
#include "store/rocks_store.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "store/data_dir.h"
#include "store/failpoint.h"
#include "store/log_format.h"
#include "store/recovery.h"
#include "store/wal_scan.h"
#include "tests/store/store_testing.h"

namespace flux::store {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Lsn kEntries = 40;

RocksOptions Small(const std::string& path) {
  RocksOptions options;
  options.path = path;
  options.shards = 2;
  options.ballast_bytes = 0;
  options.reserve_bytes = 0;
  return options;
}

std::string Text(const absl::Status& status) { return std::string(Message(status)); }

std::string Slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void Spit(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string Entry(Lsn lsn) { return Bytes(100 + (lsn * 977) % 4000, lsn); }

// The newest write-ahead log that holds anything.
std::string Wal(const std::string& data) {
  std::string newest;
  for (const auto& file : fs::directory_iterator(data + "/db")) {
    if (file.path().extension() == ".log" && file.file_size() > 0) {
      newest = std::max(newest, file.path().string());
    }
  }
  return newest;
}

std::string FileLike(const std::string& data, const std::string& part) {
  for (const auto& file : fs::directory_iterator(data + "/db")) {
    if (file.path().filename().string().find(part) != std::string::npos) return file.path();
  }
  return "";
}

// A directory with kEntries acknowledged entries in shard 0, and a row beside each.
void Fill(const std::string& data) {
  auto store = RocksStore::Open(Small(data));
  ASSERT_TRUE(store.ok()) << store.status();
  auto claim = (*store)->log().Claim(0);
  ASSERT_TRUE(claim.ok()) << claim.status();
  for (Lsn lsn = claim->last_lsn + 1; lsn <= claim->last_lsn + kEntries; ++lsn) {
    const AppendResult result = AppendOne((*store)->log(), 0, claim->epoch, lsn, Entry(lsn),
                                          {{"row/" + std::to_string(lsn), Entry(lsn)}});
    ASSERT_EQ(result.outcome, AppendOutcome::kOk) << result.status;
  }
}

// OK: everything that Fill acknowledged is there. DataLoss and the like: the store said it is not.
// A test failure: something is missing and the store did not say so.
absl::Status Verify(const std::string& data, std::vector<std::string>* notes = nullptr,
                    bool accept_damaged_tail = false, Lsn entries = kEntries) {
  RocksOptions options = Small(data);
  options.accept_damaged_tail = accept_damaged_tail;
  auto store = RocksStore::Open(options);
  if (!store.ok()) return store.status();
  if (notes != nullptr) *notes = (*store)->OpenNotes();
  auto claim = (*store)->log().Claim(0);
  if (!claim.ok()) return claim.status();
  EXPECT_EQ(claim->last_lsn, entries) << "acknowledged entries vanished without a word";
  EXPECT_EQ(claim->first_lsn, 1u);
  absl::Status status;
  const std::vector<std::string> found = ReadLog((*store)->log(), 0, 1, &status);
  if (!status.ok()) return status;
  EXPECT_EQ(found.size(), entries);
  for (Lsn lsn = 1; lsn <= found.size(); ++lsn) {
    EXPECT_EQ(found[lsn - 1], Entry(lsn));
    auto row = (*store)->rows().Get("row/" + std::to_string(lsn));
    if (!row.ok()) return row.status();
    EXPECT_EQ(row->value_or("(none)"), Entry(lsn));
  }
  return absl::OkStatus();
}

// Takes from this thread what it may do with files because it is root; others have no such rights.
class AsNobody {
 public:
  AsNobody() { ::setfsuid(65534); }
  ~AsNobody() { ::setfsuid(::geteuid()); }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
};

class RocksStoreTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_TRUE(Failpoint::Arm("").ok()); }
  TempDir directory_;
  const std::string data_ = directory_.path() + "/data";
};

// ---- the directory
// ---------------------------------------------------------------------------------------------

TEST_F(RocksStoreTest, CreatesMissingParentsAndKeepsTheShardsOfItsCreation) {
  RocksOptions options = Small(directory_.path() + "/a/b/c");
  options.shards = 8;
  { ASSERT_TRUE(RocksStore::Open(options).ok()); }
  options.shards = 2;
  auto again = RocksStore::Open(options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->shards(), 8u);
}

TEST_F(RocksStoreTest, RefusesWhatIsNotItsDirectoryAndLeavesItAlone) {
  struct Case {
    const char* name;
    std::function<std::string()> make;
    absl::StatusCode code;
    const char* text;
  };
  const std::vector<Case> cases = {
      {"a foreign directory",
       [&] {
         fs::create_directories(directory_.path() + "/foreign");
         Spit(directory_.path() + "/foreign/thesis.tex", "years of work");
         return directory_.path() + "/foreign";
       },
       absl::StatusCode::kFailedPrecondition, "not a Flux data directory"},
      {"a file",
       [&] {
         Spit(directory_.path() + "/file", "text");
         return directory_.path() + "/file";
       },
       absl::StatusCode::kFailedPrecondition, "not a directory"},
      {"below a file", [&] { return directory_.path() + "/file/data"; },
       absl::StatusCode::kFailedPrecondition, "Not a directory; choose another directory"},
      {"a loop",
       [&] {
         fs::create_symlink("loop", directory_.path() + "/loop");
         return directory_.path() + "/loop/data";
       },
       absl::StatusCode::kFailedPrecondition, "; choose another directory"},
      {"a name that is too long", [&] { return directory_.path() + "/" + std::string(300, 'x'); },
       absl::StatusCode::kInvalidArgument, "; choose another directory"},
      {"where nobody may write", [&] { return std::string("/sys/flux-store-test"); },
       absl::StatusCode::kPermissionDenied, "/sys/flux-store-test"},
      {"no path", [&] { return std::string(); }, absl::StatusCode::kInvalidArgument,
       "no data directory"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string path = c.make();
    auto store = RocksStore::Open(Small(path));
    EXPECT_EQ(store.status().code(), c.code) << store.status();
    EXPECT_THAT(Text(store.status()), HasSubstr(c.text));
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_.path() + "/foreign"), {}), 1);
  RocksOptions missing = Small(directory_.path() + "/missing");
  missing.create_if_missing = false;
  EXPECT_TRUE(absl::IsNotFound(RocksStore::Open(missing).status()));
  EXPECT_FALSE(fs::exists(missing.path));
  RocksOptions odd = Small(data_);
  odd.shards = 6;
  EXPECT_TRUE(absl::IsInvalidArgument(RocksStore::Open(odd).status()));
}

// A directory that is there but cannot be written: its lock tells first.
TEST_F(RocksStoreTest, ALockThatCannotBeWrittenNamesTheDirectoryAndTheWayOut) {
  const std::string lock = data_ + "/LOCK";
  const auto refused = [&](absl::StatusCode code, const std::string& why) {
    const absl::Status status = RocksStore::Open(Small(data_)).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(Text(status),
                AllOf(HasSubstr("data directory " + data_ + " cannot be written"), HasSubstr(lock),
                      HasSubstr(why), HasSubstr("choose another directory")));
  };
  ASSERT_NO_FATAL_FAILURE(Fill(data_));
  fs::permissions(directory_.path(), fs::perms(0755));
  fs::permissions(lock, fs::perms(0444));
  {
    const AsNobody nobody;
    refused(absl::StatusCode::kPermissionDenied, "Permission denied; check its owner and mode");
  }
  fs::permissions(lock, fs::perms(0644));
  fs::rename(lock, lock + ".aside");
  fs::create_directory(lock);
  refused(absl::StatusCode::kFailedPrecondition, "Is a directory");
  fs::remove(lock);
  fs::create_symlink("nowhere/LOCK", lock);
  refused(absl::StatusCode::kNotFound, "No such file");
  fs::remove(lock);
  fs::rename(lock + ".aside", lock);
  EXPECT_TRUE(Verify(data_).ok());
}

TEST_F(RocksStoreTest, RefusesANewerFormatAndADamagedOne) {
  { ASSERT_TRUE(RocksStore::Open(Small(data_)).ok()); }
  const std::string good = Slurp(data_ + "/FORMAT");
  DataFormat newer;
  newer.version = kDataFormatVersion + 1;
  newer.shards = 2;
  Spit(data_ + "/FORMAT", EncodeDataFormat(newer));
  absl::Status status = RocksStore::Open(Small(data_)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(Text(status), AllOf(HasSubstr("newer program"), HasSubstr("upgrade")));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x04);
    Spit(data_ + "/FORMAT", bad);
    EXPECT_FALSE(RocksStore::Open(Small(data_)).ok()) << "flipped byte " << i;
  }
  Spit(data_ + "/FORMAT", good);
  EXPECT_TRUE(RocksStore::Open(Small(data_)).ok());
}

TEST_F(RocksStoreTest, TakesUpAnOlderFormatAndSaysSo) {
  { ASSERT_TRUE(RocksStore::Open(Small(data_)).ok()); }
  const std::string path = data_ + "/FORMAT";
  DataFormat format = *DecodeDataFormat(Slurp(path), path);
  EXPECT_EQ(format.version, kDataFormatVersion);
  const std::string newest = Slurp(path);
  format.version = 1;
  Spit(path, EncodeDataFormat(format));
  { ASSERT_TRUE(RocksStore::Open(Small(data_)).ok()); }
  EXPECT_EQ(Slurp(path), newest);
}

TEST_F(RocksStoreTest, ASecondOpenIsRefusedAndNamesTheOwner) {
  auto store = RocksStore::Open(Small(data_));
  ASSERT_TRUE(store.ok());
  const absl::Status status = RocksStore::Open(Small(data_)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(Text(status),
              AllOf(HasSubstr("another fluxd"), HasSubstr(std::to_string(::getpid()))));
  store->reset();
  EXPECT_TRUE(RocksStore::Open(Small(data_)).ok());
}

TEST_F(RocksStoreTest, AnInterruptedCreationIsTakenUpAgain) {
  for (const char* point :
       {"create_before_format", "create_after_format", "create_after_database"}) {
    SCOPED_TRACE(point);
    const std::string path = directory_.path() + "/" + point;
    ASSERT_TRUE(Failpoint::Arm(std::string(point) + ":1:error").ok());
    EXPECT_FALSE(RocksStore::Open(Small(path)).ok());
    ASSERT_TRUE(Failpoint::Arm("").ok());
    auto store = RocksStore::Open(Small(path));
    EXPECT_TRUE(store.ok()) << store.status();
  }
}

// ---- torn tails and damage
// ----------------------------------------------------------------------------------------

TEST_F(RocksStoreTest, ATornTailThatNobodyWasToldOfIsDroppedAndSaidSo) {
  struct Case {
    const char* name;
    std::string tail;
    bool noted;
  };
  // A header that promises more than is there; bytes that are no record; zeros as of a file that
  // grew.
  const std::vector<Case> cases = {
      {"a header cut short", std::string("\x11\x22\x33", 3), true},
      {"a record cut short", std::string("\x11\x22\x33\x44\x00\x10\x01", 7) + "half of it", true},
      {"a whole record that does not verify",
       std::string("\x11\x22\x33\x44\x05\x00\x01", 7) + "wrong", true},
      {"zeros", std::string(100, '\0'), false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string data = directory_.path() + "/" + c.name;
    Fill(data);
    const std::string wal = Wal(data);
    Spit(wal, Slurp(wal) + c.tail);
    auto store = RocksStore::Open(Small(data));
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ((*store)->Stats().entries_dropped_at_open, c.noted ? 1u : 0u);
    EXPECT_THAT((*store)->OpenNotes(),
                c.noted ? ::testing::Matcher<std::vector<std::string>>(
                              ElementsAre(AllOf(HasSubstr(wal), HasSubstr("never acknowledged"))))
                        : ::testing::Matcher<std::vector<std::string>>(IsEmpty()));
    store->reset();
    EXPECT_TRUE(Verify(data).ok());
  }
}

TEST_F(RocksStoreTest, ACutThatTakesAcknowledgedBytesIsDataLoss) {
  Fill(data_);
  const std::string wal = Wal(data_);
  const std::string whole = Slurp(wal);
  for (size_t cut : {size_t{1}, size_t{100}, size_t{5000}, whole.size() / 2, whole.size()}) {
    SCOPED_TRACE(cut);
    Spit(wal, whole.substr(0, whole.size() - cut));
    const absl::Status status = Verify(data_);
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(Text(status), AllOf(HasSubstr(wal), HasSubstr("acknowledged")));
  }
  Spit(wal, whole);
  EXPECT_TRUE(Verify(data_).ok()) << "the refusals changed nothing";
}

TEST_F(RocksStoreTest, AFlippedBitAnywhereIsNeverSilent) {
  Fill(data_);
  const std::string copy = directory_.path() + "/copy";
  struct Target {
    std::string file;
    bool must_refuse;  // every byte of it matters
  };
  std::vector<Target> targets = {{fs::relative(Wal(data_), data_), true},
                                 {fs::relative(FileLike(data_, "MANIFEST"), data_), true},
                                 {"db/CURRENT", false},
                                 {"SYNCED", false}};
  for (const Target& target : targets) {
    const std::string whole = Slurp(data_ + "/" + target.file);
    const size_t step = std::max<size_t>(1, whole.size() / 25);
    int refused = 0;
    int tried = 0;
    for (size_t at = 0; at < whole.size(); at += step, ++tried) {
      SCOPED_TRACE(target.file + " byte " + std::to_string(at));
      fs::remove_all(copy);
      fs::copy(data_, copy, fs::copy_options::recursive);
      std::string bad = whole;
      bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
      Spit(copy + "/" + target.file, bad);
      const absl::Status status = Verify(copy);
      refused += status.ok() ? 0 : 1;
      EXPECT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
      EXPECT_FALSE(status.ok() && target.must_refuse);
    }
    EXPECT_GT(tried, 0);
    EXPECT_EQ(refused, target.must_refuse ? tried : refused) << target.file;
  }
}

TEST_F(RocksStoreTest, AFlippedBitInATableFileIsFoundWhenItIsRead) {
  Fill(data_);
  // Opening writes what the log held into table files.
  { ASSERT_TRUE(RocksStore::Open(Small(data_)).ok()); }
  const std::string copy = directory_.path() + "/copy";
  int refused = 0;
  for (const auto& file : fs::directory_iterator(data_ + "/db")) {
    if (file.path().extension() != ".sst") continue;
    const std::string whole = Slurp(file.path());
    for (size_t at = 0; at < whole.size(); at += whole.size() / 12 + 1) {
      fs::remove_all(copy);
      fs::copy(data_, copy, fs::copy_options::recursive);
      std::string bad = whole;
      bad[at] = static_cast<char>(bad[at] ^ 0x20);
      Spit(copy + "/db/" + file.path().filename().string(), bad);
      // Verify itself fails the test if anything is missing or different without a status.
      const absl::Status status = Verify(copy);
      refused += status.ok() ? 0 : 1;
      EXPECT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
    }
  }
  EXPECT_GT(refused, 5);
}

TEST_F(RocksStoreTest, AMissingFileIsDataLoss) {
  Fill(data_);
  { ASSERT_TRUE(RocksStore::Open(Small(data_)).ok()); }
  Fill(data_);  // a table file and a write-ahead log, both in use
  for (const std::string& part : {fs::path(Wal(data_)).filename().string(), std::string(".sst"),
                                  std::string("CURRENT"), std::string("MANIFEST")}) {
    SCOPED_TRACE(part);
    const std::string file = FileLike(data_, part);
    ASSERT_NE(file, "");
    const std::string aside = directory_.path() + "/aside";
    fs::rename(file, aside);
    const absl::Status status = Verify(data_, nullptr, false, 2 * kEntries);
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    fs::rename(aside, file);
  }
  const absl::Status status = Verify(data_, nullptr, false, 2 * kEntries);
  EXPECT_TRUE(status.ok()) << status;
}

// What an interrupted copy of a small directory may leave: logs, and nothing that names them.
TEST_F(RocksStoreTest, LogsWithoutTheirManifestAreNotTakenForANewDirectory) {
  Fill(data_);
  const std::string wal = Wal(data_);
  const std::string whole = Slurp(wal);
  fs::remove(data_ + "/SYNCED");
  fs::remove(data_ + "/db/CURRENT");
  ASSERT_EQ(FileLike(data_, ".sst"), "");
  const absl::Status status = Verify(data_);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(Text(status), AllOf(HasSubstr("CURRENT is missing"), HasSubstr(wal),
                                  HasSubstr("copy the rest"), HasSubstr("from a backup")));
  EXPECT_EQ(Slurp(wal), whole);
  // What a crash during the creation leaves: files, but none with data.
  for (const auto& file : fs::directory_iterator(data_ + "/db")) {
    if (file.path().extension() == ".log") Spit(file.path(), "");
  }
  auto begun = RocksStore::Open(Small(data_));
  EXPECT_TRUE(begun.ok()) << begun.status();
}

TEST_F(RocksStoreTest, ADatabaseThatCannotBeLookedAtIsNotTakenForANewOne) {
  Fill(data_);
  fs::remove(data_ + "/SYNCED");
  const std::string aside = directory_.path() + "/aside";
  fs::rename(data_ + "/db", aside);
  fs::create_symlink("db", data_ + "/db");  // leads to itself
  auto store = RocksStore::Open(Small(data_));
  EXPECT_FALSE(store.ok());
  EXPECT_THAT(Text(store.status()), HasSubstr("look at " + data_ + "/db"));
  EXPECT_TRUE(fs::is_symlink(data_ + "/db"));
  fs::remove(data_ + "/db");
  fs::rename(aside, data_ + "/db");
  const absl::Status status = Verify(data_);
  EXPECT_TRUE(status.ok()) << status;
}

// Without the marks, as after a power failure that took them, a cut record is taken for torn and a
// whole one that does not verify is not.
TEST_F(RocksStoreTest, AfterAPowerFailureADamagedLastRecordIsRefusedUntilTheOperatorAccepts) {
  Fill(data_);
  const std::string wal = Wal(data_);
  fs::remove(data_ + "/SYNCED");
  std::string bytes = Slurp(wal);
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
  Spit(wal, bytes);
  absl::Status status = Verify(data_);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(Text(status), AllOf(HasSubstr(wal), HasSubstr("cannot be told"),
                                  HasSubstr("--accept-damaged-tail")));
  std::vector<std::string> notes;
  status = Verify(data_, &notes, true, kEntries - 1);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(notes, ElementsAre(HasSubstr("SYNCED"), HasSubstr("as accept-damaged-tail asks")));
}

TEST_F(RocksStoreTest, AfterAPowerFailureACutLastRecordIsDroppedAndSaidSo) {
  Fill(data_);
  fs::remove(data_ + "/SYNCED");
  const std::string wal = Wal(data_);
  const std::string bytes = Slurp(wal);
  Spit(wal, bytes.substr(0, bytes.size() - 3));
  std::vector<std::string> notes;
  const absl::Status status = Verify(data_, &notes, false, kEntries - 1);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(notes, ::testing::Contains(HasSubstr("torn")));
}

// Changes the log behind the store's back, as a fault of the database itself would.
void Tamper(const std::string& data,
            const std::function<void(rocksdb::DB*, rocksdb::ColumnFamilyHandle*)>& change) {
  const rocksdb::ColumnFamilyOptions defaults;
  std::vector<rocksdb::ColumnFamilyDescriptor> families = {
      {rocksdb::kDefaultColumnFamilyName, defaults},
      {"log", defaults},
      {"rows", defaults},
      {"chunks", defaults}};
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(rocksdb::DBOptions(), data + "/db", families, &handles, &db).ok());
  change(db, handles[1]);
  for (rocksdb::ColumnFamilyHandle* handle : handles) {
    EXPECT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
  }
  delete db;
  fs::remove(data + "/SYNCED");  // RocksDB alone keeps no marks
}

TEST_F(RocksStoreTest, EntriesThatAreMissingDamagedOrNewerAreDataLossThatNamesThem) {
  const auto key = [](Lsn lsn) {
    const LogKeyBuffer bytes = LogKey(0, lsn);
    return std::string(bytes.data(), bytes.size());
  };
  struct Case {
    const char* name;
    Lsn lsn;
    std::function<void(std::string*)> change;  // empty: the entry vanishes
    const char* text;
  };
  const std::vector<Case> cases = {
      {"the last vanished", kEntries, nullptr, "went backwards"},
      {"the first vanished", 1, nullptr, "log entry 1, the oldest"},
      {"one in the middle vanished", 17, nullptr, "log entry 17 is missing"},
      {"a flipped bit", 17, [](std::string* v) { v->back() = static_cast<char>(v->back() ^ 1); },
       "log entry 17 is damaged"},
      {"cut", 17, [](std::string* v) { v->pop_back(); }, "log entry 17 is damaged"},
      {"newer", 17, [](std::string* v) { (*v)[0] = kEntryVersion + 1; },
       "log entry 17 has format 2"},
      {"the last damaged", kEntries, [](std::string* v) { v->pop_back(); },
       "log entry 40 is damaged"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string data = directory_.path() + "/" + c.name;
    Fill(data);
    {
      auto store = RocksStore::Open(Small(data));
      ASSERT_TRUE(store.ok());
      ASSERT_TRUE((*store)->log().Claim(0).ok());  // notes the last entry
    }
    Tamper(data, [&](rocksdb::DB* db, rocksdb::ColumnFamilyHandle* log) {
      std::string value;
      ASSERT_TRUE(db->Get(rocksdb::ReadOptions(), log, key(c.lsn), &value).ok());
      if (c.change == nullptr) {
        ASSERT_TRUE(db->Delete(rocksdb::WriteOptions(), log, key(c.lsn)).ok());
        return;
      }
      c.change(&value);
      ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), log, key(c.lsn), value).ok());
    });
    auto store = RocksStore::Open(Small(data));
    ASSERT_TRUE(store.ok()) << store.status();
    absl::Status status = (*store)->log().Claim(0).status();
    Lsn visited = 0;
    if (status.ok()) {
      status = (*store)->log().Read(0, 1, [&](Lsn lsn, std::string_view) {
        visited = lsn;
        return true;
      });
      EXPECT_EQ(visited, c.lsn - 1) << "those before it are visited";
    }
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(Text(status), AllOf(HasSubstr("shard 0"), HasSubstr(c.text)));
  }
}

// ---- failed writes
// ------------------------------------------------------------------------------------------------

TEST_F(RocksStoreTest, AWriteThatFailsWhileOpeningIsToldAndTheNextOpenHasEverything) {
  for (const char* point : {"manifest_write", "table_write", "format_raise", "tail_cut"}) {
    SCOPED_TRACE(point);
    const std::string data = directory_.path() + "/" + point;
    Fill(data);
    const std::string path = data + "/FORMAT";
    DataFormat format = *DecodeDataFormat(Slurp(path), path);
    format.version = 1;
    Spit(path, EncodeDataFormat(format));
    ASSERT_TRUE(Failpoint::Arm(std::string(point) + ":1:error").ok());
    const absl::Status status = RocksStore::Open(Small(data)).status();
    EXPECT_THAT(Text(status), HasSubstr(std::string("injected fault: ") + point));
    ASSERT_TRUE(Failpoint::Arm("").ok());
    EXPECT_TRUE(Verify(data).ok());
  }
}

TEST_F(RocksStoreTest, AFailedWriteIsUnknownStopsTheStoreAndTheNonceTellsAfterReopening) {
  struct Case {
    const char* point;
    bool committed;
    absl::StatusCode code;
  };
  const std::vector<Case> cases = {
      {"append_before_write", false, absl::StatusCode::kUnavailable},
      {"append_after_write", true, absl::StatusCode::kUnavailable},
      {"wal_write", false, absl::StatusCode::kResourceExhausted},
      {"wal_write_torn", false, absl::StatusCode::kUnavailable},
      {"wal_sync", true, absl::StatusCode::kUnavailable},
      {"mark_write", true, absl::StatusCode::kUnavailable},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.point);
    const std::string data = directory_.path() + "/" + c.point;
    AppendResult first;
    AppendResult second;
    {
      auto store = RocksStore::Open(Small(data));
      ASSERT_TRUE(store.ok()) << store.status();
      auto claim = (*store)->log().Claim(0);
      ASSERT_TRUE(claim.ok());
      first = AppendOne((*store)->log(), 0, claim->epoch, 1, "one");
      ASSERT_EQ(first.outcome, AppendOutcome::kOk);
      ASSERT_TRUE(Failpoint::Arm(std::string(c.point) + ":1:error").ok());
      second = AppendOne((*store)->log(), 0, claim->epoch, 2, std::string(5000, '2'));
      EXPECT_EQ(second.outcome, AppendOutcome::kUnknown);
      EXPECT_EQ(second.status.code(), c.code) << second.status;
      const AppendResult third = AppendOne((*store)->log(), 0, claim->epoch, 3, "three");
      EXPECT_EQ(third.outcome, AppendOutcome::kNotCommitted);
      EXPECT_THAT(Text(third.status), HasSubstr("stopped after a failed write"));
      EXPECT_TRUE(absl::IsFailedPrecondition((*store)->log().Claim(1).status()));
      EXPECT_TRUE(absl::IsFailedPrecondition((*store)->log().Truncate(0, claim->epoch, 1)));
      ASSERT_TRUE(Failpoint::Arm("").ok());
    }
    auto store = RocksStore::Open(Small(data));
    ASSERT_TRUE(store.ok()) << store.status();
    auto claim = (*store)->log().Claim(0);
    ASSERT_TRUE(claim.ok()) << claim.status();
    EXPECT_EQ(claim->last_lsn, c.committed ? 2u : 1u);
    EXPECT_EQ(claim->last_nonce, c.committed ? second.nonce : first.nonce);
    EXPECT_EQ(AppendOne((*store)->log(), 0, claim->epoch, claim->last_lsn + 1, "next").outcome,
              AppendOutcome::kOk);
  }
}

TEST_F(RocksStoreTest, AFailedClaimOrRowWriteStopsTheStore) {
  for (const char* point : {"claim_before_write", "rows_before_write", "write_sync_before_write",
                            "truncate_before_write"}) {
    SCOPED_TRACE(point);
    auto store = RocksStore::Open(Small(directory_.path() + "/" + point));
    ASSERT_TRUE(store.ok());
    auto claim = (*store)->log().Claim(0);
    ASSERT_TRUE(claim.ok());
    ASSERT_EQ(AppendOne((*store)->log(), 0, claim->epoch, 1, "one").outcome, AppendOutcome::kOk);
    ASSERT_TRUE(Failpoint::Arm(std::string(point) + ":1:error").ok());
    const std::string name = point;
    absl::Status status;
    if (name[0] == 'c') status = (*store)->log().Claim(1).status();
    if (name[0] == 'r') status = WriteRows((*store)->rows(), {Puts(0, claim->epoch, {{"k", "v"}})});
    if (name[0] == 'w') status = (*store)->rows().WriteSync(Puts(0, claim->epoch, {{"k", "v"}}));
    if (name[0] == 't') status = (*store)->log().Truncate(0, claim->epoch, 1);
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    ASSERT_TRUE(Failpoint::Arm("").ok());
    EXPECT_EQ(AppendOne((*store)->log(), 0, claim->epoch, 2, "two").outcome,
              AppendOutcome::kNotCommitted);
  }
}

// ---- space
// -----------------------------------------------------------------------------------------------------------

TEST_F(RocksStoreTest, BelowTheReserveItSaysSoAndWhenNextToNothingIsLeftTheBallastGoes) {
  std::atomic<uint64_t> free{1u << 30};
  std::mutex mutex;
  std::vector<std::string> warnings;
  RocksOptions options = Small(data_);
  options.reserve_bytes = 100u << 20;
  options.ballast_bytes = 4u << 20;
  options.free_bytes = [&]() -> absl::StatusOr<uint64_t> { return free.load(); };
  options.on_warning = [&](std::string warning) {
    std::lock_guard<std::mutex> lock(mutex);
    warnings.push_back(std::move(warning));
  };
  // Reopened for each figure: an open store's answer may be 100 ms old.
  const auto below = [&](uint64_t bytes) {
    free = bytes;
    auto store = RocksStore::Open(options);
    EXPECT_TRUE(store.ok()) << store.status();
    EXPECT_EQ((*store)->Stats().bytes_free, bytes);
    return (*store)->BelowReserve();
  };
  EXPECT_FALSE(below(1u << 30));
  EXPECT_EQ(fs::file_size(data_ + "/BALLAST"), options.ballast_bytes);
  EXPECT_FALSE(below(options.reserve_bytes));
  EXPECT_TRUE(below(options.reserve_bytes - 1));
  EXPECT_EQ(fs::file_size(data_ + "/BALLAST"), options.ballast_bytes);
  EXPECT_TRUE(below(options.ballast_bytes - 1));
  EXPECT_EQ(fs::file_size(data_ + "/BALLAST"), 0u);
  EXPECT_THAT(warnings, ::testing::Contains(HasSubstr("nearly full")));
  EXPECT_FALSE(below(options.reserve_bytes + options.ballast_bytes));
  EXPECT_EQ(fs::file_size(data_ + "/BALLAST"), 0u) << "restored only with room to spare";
  EXPECT_FALSE(below(options.reserve_bytes + 2 * options.ballast_bytes));
  EXPECT_EQ(fs::file_size(data_ + "/BALLAST"), options.ballast_bytes);
}

constexpr int kNotPermitted = 77;

// Fills a file system of 48 MiB of its own and ends the process: 0, or the step that failed.
[[noreturn]] void FillADisk(const std::string& mount_point) {
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("flux", mount_point.c_str(), "tmpfs", 0, "size=48m") != 0) {
    std::exit(kNotPermitted);
  }
  RocksOptions options = Small(mount_point + "/data");
  options.ballast_bytes = 8u << 20;
  options.reserve_bytes = 1u << 20;
  options.log_buffer_bytes = 4u << 20;
  options.rows_buffer_bytes = 4u << 20;
  Lsn acknowledged = 0;
  {
    auto store = RocksStore::Open(options);
    if (!store.ok()) std::exit(1);
    auto claim = (*store)->log().Claim(0);
    if (!claim.ok()) std::exit(2);
    AppendResult result;
    for (Lsn lsn = 1;; ++lsn) {
      result = AppendOne((*store)->log(), 0, claim->epoch, lsn, Bytes(200'000, lsn));
      if (result.outcome != AppendOutcome::kOk) break;
      acknowledged = lsn;
    }
    std::fprintf(stderr, "after %llu entries: %s\n", static_cast<unsigned long long>(acknowledged),
                 Text(result.status).c_str());
    if (!absl::IsResourceExhausted(result.status)) std::exit(3);
    if (Text(result.status).find("disk is full") == std::string::npos) std::exit(4);
    if (fs::file_size(mount_point + "/data/BALLAST") != 0) std::exit(5);
  }
  auto store = RocksStore::Open(options);
  if (!store.ok()) {
    std::fprintf(stderr, "reopening: %s\n", Text(store.status()).c_str());
    std::exit(6);
  }
  auto claim = (*store)->log().Claim(0);
  if (!claim.ok() || claim->last_lsn < acknowledged || acknowledged < 20) std::exit(7);
  Lsn read = 0;
  const absl::Status status = (*store)->log().Read(0, 1, [&](Lsn lsn, std::string_view bytes) {
    if (bytes == Bytes(200'000, lsn)) read = lsn;
    return true;
  });
  if (!status.ok() || read < acknowledged) std::exit(8);
  // Deletes and flushes work on the ballast's room.
  if (!(*store)->log().Truncate(0, claim->epoch, claim->last_lsn).ok()) std::exit(9);
  const AppendResult alive =
      AppendOne((*store)->log(), 0, claim->epoch, claim->last_lsn + 1, "still alive");
  if (alive.outcome != AppendOutcome::kOk) std::exit(10);
  store->reset();
  std::exit(0);
}

// In a process and a mount namespace of its own.
TEST_F(RocksStoreTest, AFullDiskStopsTheStoreLosesNothingAcknowledgedAndOpensAgain) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string mount_point = directory_.path() + "/small";
  fs::create_directories(mount_point);
  int code = -1;
  EXPECT_EXIT(
      FillADisk(mount_point),
      [&](int status) {
        code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        return code == 0 || code == kNotPermitted;
      },
      "");
  if (code == kNotPermitted) GTEST_SKIP() << "mounting a file system is not permitted here";
}

TEST_F(RocksStoreTest, AnIdleStoreWritesItsBuffersOut) {
  RocksOptions options = Small(data_);
  options.idle_flush_after = absl::Milliseconds(1);
  auto store = RocksStore::Open(options);
  ASSERT_TRUE(store.ok());
  auto claim = (*store)->log().Claim(0);
  ASSERT_TRUE(claim.ok());
  ASSERT_EQ(AppendOne((*store)->log(), 0, claim->epoch, 1, Bytes(3u << 20, 1)).outcome,
            AppendOutcome::kOk);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (FileLike(data_, ".sst").empty() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_NE(FileLike(data_, ".sst"), "");
}

// ---- formats
// ------------------------------------------------------------------------------------------------------

TEST(Crc32c, IsCastagnolis) {
  EXPECT_EQ(Crc32c(0, "123456789"),
            0xE3069283u);  // RFC 3720, appendix B.4 and the usual check value
  EXPECT_EQ(Crc32c(0, std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(Crc32c(0, "1234"), "56789"), 0xE3069283u);
}

TEST(LogFormat, AnEntryVerifiesUnderItsOwnShardAndLsnOnly) {
  const std::string body = "a batch of records";
  const EntryHeaderBuffer header = EntryHeader(3, 7, 99, body);
  const std::string bytes = std::string(header.data(), header.size()) + body;
  auto entry = DecodeEntry(3, 7, bytes);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->nonce, 99u);
  EXPECT_EQ(entry->body, body);
  EXPECT_TRUE(absl::IsDataLoss(DecodeEntry(3, 8, bytes).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeEntry(2, 7, bytes).status()));
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string bad = bytes;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_TRUE(absl::IsDataLoss(DecodeEntry(3, 7, bad).status())) << "bit " << bit;
  }
  for (size_t size = 0; size < bytes.size(); ++size) {
    const absl::Status status = DecodeEntry(3, 7, bytes.substr(0, size)).status();
    EXPECT_TRUE(absl::IsDataLoss(status));
    EXPECT_THAT(Text(status), AllOf(HasSubstr("shard 3"), HasSubstr("entry 7")));
  }
}

TEST(LogFormat, ANewerEntryIsNamedAsSuch) {
  std::string bytes(kEntryHeaderBytes, '\0');
  bytes[0] = static_cast<char>(kEntryVersion + 1);
  EXPECT_THAT(Text(DecodeEntry(0, 1, bytes).status()), HasSubstr("newer"));
}

TEST(LogFormat, BookkeepingVerifiesForItsOwnShardOnly) {
  const std::string bytes = EncodeBookkeeping(5, {7, 8, 9, 10});
  auto decoded = DecodeBookkeeping(5, bytes);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->epoch, 7u);
  EXPECT_EQ(decoded->first, 8u);
  EXPECT_EQ(decoded->seen_last, 9u);
  EXPECT_EQ(decoded->seen_nonce, 10u);
  EXPECT_TRUE(absl::IsDataLoss(DecodeBookkeeping(4, bytes).status()));
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string bad = bytes;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    EXPECT_TRUE(absl::IsDataLoss(DecodeBookkeeping(5, bad).status())) << at;
  }
}

TEST(LogFormat, ChunkKeysKeepTheOrderOfTheirRows) {
  using namespace std::string_literals;
  const std::vector<std::string> rows = {"\0"s, "\0\0"s,  "\0\x01"s, "\0\xFF"s,  "\x01"s,
                                         "a"s,  "a\0"s,   "a\0\0"s,  "a\0\xFF"s, "a\x01"s,
                                         "aa"s, "a\xFF"s, "b"s,      "\xFF"s};
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string last = ChunkKey(ChunkPrefix(rows[i]), ~uint32_t{0});
    EXPECT_LT(last, ChunkPrefixEnd(rows[i]));
    if (i + 1 < rows.size()) {
      EXPECT_LT(last, ChunkPrefix(rows[i + 1])) << i;
      EXPECT_LE(ChunkPrefixEnd(rows[i]), ChunkKey(ChunkPrefix(rows[i + 1]), 0)) << i;
    }
  }
}

TEST(Failpoint, RefusesWhatItDoesNotUnderstand) {
  for (const char* bad : {"nowhere:1", "wal_sync", "wal_sync:0", "wal_sync:x", "wal_sync:1:maybe",
                          "wal_sync:1:error:2"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Failpoint::Arm(bad))) << bad;
  }
  ASSERT_TRUE(Failpoint::Arm("wal_sync:2:error,wal_write:1:error").ok());
  EXPECT_FALSE(Failpoint::Hit("wal_sync"));
  EXPECT_TRUE(Failpoint::Hit("wal_sync"));
  EXPECT_FALSE(Failpoint::Hit("wal_sync"));
  EXPECT_TRUE(Failpoint::Hit("wal_write"));
  ASSERT_TRUE(Failpoint::Arm("").ok());
  EXPECT_FALSE(Failpoint::Hit("wal_write"));
}

}  // namespace
}  // namespace flux::store
