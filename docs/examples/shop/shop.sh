#!/bin/sh
# The web part of the shop. A web server runs it for each request:
#   GET  .../visits   counts the visit in Redis; the count
#   POST .../orders   writes the body, one line, into PostgreSQL; the order's number, once it is on disk
#   GET  .../orders   number and text of all orders
# Where the two are its links "db" and "cache" say.

answer() {
    printf 'Status: %s\r\nContent-Type: text/plain\r\n\r\n%s\n' "$1" "$2"
    exit
}

sql() { # the statements are read from standard input; :'item' in them is the item
    PGCONNECT_TIMEOUT=2 PGOPTIONS="-c client_min_messages=warning -c statement_timeout=3000" timeout 5 \
        psql -h "$DB_PORT_5432_TCP_ADDR" -p "$DB_PORT_5432_TCP_PORT" -U postgres -X -q -A -t -F ' ' \
        -v ON_ERROR_STOP=1 -v item="$item"
}

case "$REQUEST_METHOD $PATH_INFO" in
"GET /visits")
    [ -n "$CACHE_PORT_6379_TCP_ADDR" ] || answer "404 Not Found" "no cache is linked"
    count=$(timeout 5 redis-cli -e -h "$CACHE_PORT_6379_TCP_ADDR" -p "$CACHE_PORT_6379_TCP_PORT" INCR visits 2>&1) ||
        answer "503 Service Unavailable" "the cache: $count"
    answer "200 OK" "$count"
    ;;
"POST /orders")
    read -r item
    number=$(sql 2>&1 <<'END'
CREATE TABLE IF NOT EXISTS orders (number serial PRIMARY KEY, item text);
INSERT INTO orders (item) VALUES (:'item') RETURNING number;
END
    ) || answer "503 Service Unavailable" "the database: $number"
    answer "201 Created" "$number"
    ;;
"GET /orders")
    all=$(echo "SELECT number, item FROM orders ORDER BY number" | sql 2>&1) ||
        answer "503 Service Unavailable" "the database: $all"
    answer "200 OK" "$all"
    ;;
*) answer "404 Not Found" "visits or orders?" ;;
esac
