#include "finetune/formats/jsonl.h"

#include "finetune/base/error.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zlib.h>

#include <fstream>
#include <functional>

namespace finetune {
namespace {

class JsonlTest : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& content) {
    const auto path = folder_.path() / "rows.jsonl";
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  static std::string packed(const std::string& content) {
    z_stream stream{};
    deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&stream, content.size()) + 64, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
    stream.avail_in = static_cast<uInt>(content.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    deflate(&stream, Z_FINISH);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
  }

  std::vector<JsonRow> read_all(const std::string& content, std::int64_t max_row_bytes = 1 << 20) {
    JsonRowReader reader(write(content), "rows.jsonl", max_row_bytes);
    std::vector<JsonRow> rows;
    while (auto row = reader.next()) rows.push_back(std::move(*row));
    return rows;
  }

  /// Every message that reading gives, in order.
  std::vector<std::string> problems(const std::string& content,
                                    std::int64_t max_row_bytes = 1 << 20) {
    std::vector<std::string> found;
    try {
      JsonRowReader reader(write(content), "rows.jsonl", max_row_bytes);
      while (true) {
        try {
          if (!reader.next()) return found;
        } catch (const Error& error) {
          EXPECT_EQ(error.kind(), ErrorKind::data);
          found.emplace_back(error.what());
        }
      }
    } catch (const Error& error) {
      found.emplace_back(error.what());
    }
    return found;
  }

  void expect_problem(const std::string& content, const std::string& part,
                      std::int64_t max_row_bytes = 1 << 20) {
    const auto found = problems(content, max_row_bytes);
    ASSERT_FALSE(found.empty()) << content.substr(0, 100);
    EXPECT_NE(found.front().find(part), std::string::npos) << found.front();
    EXPECT_LT(found.front().size(), 500u);
  }

  TemporaryFolder folder_;
};

TEST_F(JsonlTest, CountsBlankLines) {
  const auto rows = read_all(
      "\xEF\xBB\xBF\n{\"a\": 1}\r\n \t\n\n{\"b\": [1, {\"c\": null}], \"a\": \"\\u00e9\"}");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].line, 2);
  EXPECT_EQ(rows[1].line, 5);
  EXPECT_EQ(rows[1].element, 0);
  EXPECT_EQ(rows[1].value.dump(), "{\"b\":[1,{\"c\":null}],\"a\":\"é\"}");
}

TEST_F(JsonlTest, ReadsArrays) {
  const auto rows = read_all(" [\n {\"a\": \"],{\\\"\"},\n{\"a\":\n[2]} ,3 ]\n ");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].value["a"], "],{\"");
  EXPECT_EQ(rows[1].line, 3);
  EXPECT_EQ(rows[1].element, 2);
  EXPECT_EQ(rows[2].line, 4);
  EXPECT_EQ(rows[2].value, 3);
}

TEST_F(JsonlTest, ReadsGzipByContent) {
  std::string content;
  for (int i = 0; i < 100000; ++i) content += "{\"number\": " + std::to_string(i) + "}\n";
  const auto rows =
      read_all(packed(content) + packed("{\"number\": -1}\n") + std::string(512, '\0'));
  ASSERT_EQ(rows.size(), 100001u);
  EXPECT_EQ(rows[99999].value["number"], 99999);
  EXPECT_EQ(rows[100000].line, 100001);
}

TEST_F(JsonlTest, DamagedGzip) {
  const std::string whole = packed("{\"number\": 1}\n{\"number\": 2}\n");
  expect_problem(whole.substr(0, whole.size() - 4), "rows.jsonl:3: the gzip file ends too early");
  expect_problem(whole.substr(0, 5), "rows.jsonl:1: the gzip file ends too early");
  expect_problem(whole + "garbage", "the gzip data are damaged");
  std::string flipped = whole;
  flipped[flipped.size() - 6] ^= 1;
  expect_problem(flipped, "the gzip data are damaged");
  expect_problem(packed(""), "holds no rows");
}

TEST_F(JsonlTest, GoesOnAfterABadLine) {
  const auto found = problems("{\"a\": 1}\n{\"a\": }\n{\"a\": 2}\n  nonsense\n{\"a\": \"x\n");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].find("rows.jsonl:2:7: not valid JSON: "), 0u) << found[0];
  EXPECT_EQ(found[1].find("rows.jsonl:4:"), 0u) << found[1];
  EXPECT_EQ(found[2].find("rows.jsonl:5:"), 0u) << found[2];
}

TEST_F(JsonlTest, RefusesBytesThatAreNotText) {
  expect_problem("{\"a\": \"x\xFFy\"}\n", "rows.jsonl:1:9: the byte 0xff is not UTF-8");
  expect_problem(std::string("{\"a\": \"x\0y\"}\n", 13), "rows.jsonl:1:9: a NUL byte");
  expect_problem("\xFF\xFE{\0", "UTF-16");
  expect_problem("{\"a\": \"\\ud800\"}\n", "rows.jsonl:1:");
  expect_problem("\xEF\xBB\xBF{\"a\": x}\n", "rows.jsonl:1:7:");
}

TEST_F(JsonlTest, RefusesRepeatedKeysAndDeepNesting) {
  expect_problem("{\"a\": 1, \"b\": 2, \"a\": 3}", "the key \"a\" is there twice");
  expect_problem(std::string(1 << 19, '[') + "{", "nested deeper than 200");
  expect_problem("{\"a\":" + std::string(200000, '['), "nested deeper than 200");
  expect_problem("{\"a\": 1e999}", "rows.jsonl:1:");
}

TEST_F(JsonlTest, RefusesLongRows) {
  EXPECT_EQ(read_all("{\"a\": \"" + std::string(91, 'x') + "\"}\n", 100).size(), 1u);
  expect_problem("{}\n{\"a\": \"" + std::string(92, 'x') + "\"}\n",
                 "rows.jsonl:2: the row is longer than 100 B", 100);
  expect_problem("[{},\n{\"a\": \"" + std::string(92, 'x') + "\"}]",
                 "rows.jsonl:2: element 2 is longer than", 100);
}

TEST_F(JsonlTest, RefusesDamagedArrays) {
  expect_problem("[{\"a\": 1},\n{\"a\": 2}", "rows.jsonl:2: the file ends inside the JSON array");
  expect_problem("[{\"a\": 1},]", "rows.jsonl:1:11: element 2: not valid JSON");
  expect_problem("[{\"a\": 1}\n,{\"a\":\n x}]", "rows.jsonl:3:2: element 2: not valid JSON");
  expect_problem("[{\"a\": 1}] {\"b\": 2}", "rows.jsonl:1:12: there is more after the end");
  expect_problem("[{\"a\": \"\\", "rows.jsonl:1:");
  expect_problem("[]", "rows.jsonl:1: the file holds no rows");
}

TEST_F(JsonlTest, RefusesFilesWithoutRows) {
  expect_problem("", "rows.jsonl:1: the file is empty");
  expect_problem("\xEF\xBB\xBF \n\n", "rows.jsonl:1: the file holds no rows");
  const auto pipe = folder_.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const auto& path : {folder_.path(), pipe, folder_.path() / "absent"}) {
    try {
      JsonRowReader reader(path, "rows.jsonl", 100);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::data);
      EXPECT_EQ(std::string(error.what()).find("rows.jsonl: "), 0u) << error.what();
    }
  }
}

TEST_F(JsonlTest, LongMessagesAreCut) {
  expect_problem("{\"a\": \"" + std::string(5000, 'x'), "...");
}

}  // namespace
}  // namespace finetune
