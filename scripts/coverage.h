/* Put in front of each source file by scripts/coverage. jansson's type checks are macros with a condition of their own (is it
 * NULL?); as functions they are conditions of this file, not of each line that uses them. */
#pragma once

#include <jansson.h>

#define TYPE_CHECK(name, condition)                                                                \
    static inline int coverage_##name(const json_t *v)                                             \
    {                                                                                              \
        return v && (condition);                                                                   \
    }

TYPE_CHECK(object, v->type == JSON_OBJECT)
TYPE_CHECK(array, v->type == JSON_ARRAY)
TYPE_CHECK(string, v->type == JSON_STRING)
TYPE_CHECK(integer, v->type == JSON_INTEGER)
TYPE_CHECK(real, v->type == JSON_REAL)
TYPE_CHECK(number, v->type == JSON_INTEGER || v->type == JSON_REAL)
TYPE_CHECK(true, v->type == JSON_TRUE)
TYPE_CHECK(false, v->type == JSON_FALSE)
TYPE_CHECK(boolean, v->type == JSON_TRUE || v->type == JSON_FALSE)
TYPE_CHECK(null, v->type == JSON_NULL)

#undef TYPE_CHECK
#undef json_is_object
#undef json_is_array
#undef json_is_string
#undef json_is_integer
#undef json_is_real
#undef json_is_number
#undef json_is_true
#undef json_is_false
#undef json_is_boolean
#undef json_is_null
#define json_is_object coverage_object
#define json_is_array coverage_array
#define json_is_string coverage_string
#define json_is_integer coverage_integer
#define json_is_real coverage_real
#define json_is_number coverage_number
#define json_is_true coverage_true
#define json_is_false coverage_false
#define json_is_boolean coverage_boolean
#define json_is_null coverage_null
