{{ staged_event('page_timing') }}
