{{ staged_event('refund') }}
